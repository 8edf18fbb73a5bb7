"""Inference of the whole network in bands of rows; `kpac.models.network` defines the computation.

No features of full resolution are stored. The last convolution is linear in the encoder's full-size skip, so the skip's
contribution to the three output channels is added as soon as the skip is computed.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kpac.cpu import banded, few_outputs, shared_kernel
from kpac.cpu.allocator import freed_memory_kept
from kpac.cpu.banded import (
    Joined,
    Rows,
    as_image,
    check_same_size,
    convolved,
    downsampling,
    in_bands,
    layer_by_layer,
    parameters_of,
    rows_of,
    stored,
    upsampled,
)
from kpac.cpu.compiled import access, array, compiled
from kpac.cpu.conditions import number_format
from kpac.cpu.parallel import channels_last
from kpac.cpu.shared_kernel import add_responses
from kpac.models.kpac import KPACBlock
from kpac.models.layers import LEAKY_SLOPE, Conv, DownConv, ResidualConv, UpConv
from kpac.models.network import KPACNet


def suits(module: nn.Module) -> bool:
    """Whether the layers of a network or block are those that this module computes, each in its place."""
    whole: Any = module
    places: dict[type[nn.Module], Sequence[nn.Module]]
    try:
        if isinstance(module, KPACNet):
            (first, *deeper), (*inner, last) = whole.encoder, whole.decoder
            if len(deeper) != len(whole.decoder) or not all(map(suits, whole.blocks)):
                return False
            convs = [layer for stage in deeper for layer in [*stage][1:]]
            places = {
                Conv: [*first, *convs, *whole.fusion, *(stage.merge for stage in inner)],
                DownConv: [stage[0] for stage in deeper],
                UpConv: [stage.up for stage in whole.decoder],
                ResidualConv: [last.merge],
            }
        elif isinstance(module, KPACBlock):
            attention = whole.scale_attention
            places = {Conv: [whole.fusion, *(attention.features if attention else ())]}
            places[nn.Conv2d] = [attention.weigh] if attention else []
        else:
            places = {Conv: [*whole]}
    except (AttributeError, IndexError, TypeError, ValueError):  # the parts are put together in another way
        return False
    # An accelerated class derives from the plain one alone.
    return all(kind in (type(layer), type(layer).__base__) for kind, layers in places.items() for layer in layers)


def residual(model: Any, x: Tensor) -> Tensor:
    """Computes `model.residual` from the channels that the encoder reads, in [-1, 1].

    Shape: (N, 3 or 6, H, W) -> (N, 3, H, W) float32.
    """
    if not len(x):
        return x[:, :3]
    with freed_memory_kept():
        return torch.stack([_residual(model, image) for image in _images(x)]).permute(0, 3, 1, 2)


def encode(model: Any, x: Tensor) -> Tensor:
    """Computes the deepest features of `model.encode`.

    Shape: (1, 3 or 6, H, W) -> (1, C, h, w), in channels-last order.
    """
    (image,) = _images(x)
    with freed_memory_kept():
        return as_image(_encode(model, image, None)[-1])


def apply_block(block: Any, x: Tensor, shape: Tensor | None = None) -> Tensor:
    """Computes a block; see `KPACBlock` for `shape`.

    Shape: (N, C, h, w) -> (N, C, h, w), in channels-last order.
    """
    shapes = [None] * len(x) if shape is None else shape.expand(len(x), -1, -1, -1).split(1)
    with freed_memory_kept():
        outputs = [as_image(_block(block, *pair)) for pair in zip(_images(x), shapes, strict=True)]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def decode(model: Any, x: Tensor, chain: Sequence[Tensor]) -> Tensor:
    """Computes the residual from the chain's features; recomputes the encoder's skips from `x`.

    Shape: x (1, 3 or 6, H, W); chain: the input of the first block, then the output of every block, (1, C, h, w) each
    -> (1, 3, H, W) float32.
    """
    (image,) = _images(x)
    with freed_memory_kept():
        output = _Output(model, image)
        skips = _encode(model, image, output, levels=max(2, len(model.encoder) - 1))
        _decode(model, [channels_last(features)[0] for features in chain], skips, output)
        return as_image(output.values)


def _images(x: Tensor) -> Tensor:
    """Converts (N, C, H, W) to (N, H, W, C), in the dtype of the computation; a meta tensor keeps its dtype."""
    return channels_last(x.to(number_format(x) or x.dtype))


class _Output:
    """Accumulates the residual of an image (H, W, 3 or 6): the contributions of the last convolution's two inputs."""

    def __init__(self, model: Any, image: Tensor):
        stage = model.decoder[-1]
        weight = stage.merge.weight.to(image.dtype)
        parts = weight.split([stage.up.out_channels, stage.merge.in_channels - stage.up.out_channels], 1)
        self.of_up, self.of_skip = map(few_outputs.columns_of, parts)
        self.size = stage.merge.kernel_size[0]
        self.values = stage.merge.bias.repeat(*image.shape[:2], 1)  # (H, W, 3) float32

    def responses(self, features: Tensor, columns: Tensor) -> Tensor:
        """Convolves rows of features with the kernel's columns, for all output rows that read them.

        Args:
            features: (rows, W, C).
            columns: `of_up` or `of_skip`.

        Returns:
            (rows + size - 1, W, columns).
        """
        return F.conv2d(as_image(features), columns, padding=(self.size - 1, 0))[0].permute(1, 2, 0)

    def add(self, top: int, responses: Tensor) -> None:
        """Adds the responses of the rows from `top`. Call it from one thread, so that rounding does not vary."""
        few_outputs.add_rows(responses, self.size, top - self.size // 2, self.values)


def _residual(model: Any, x: Tensor) -> Tensor:
    """Computes the residual of one image: (H, W, 3 or 6) -> (H, W, 3)."""
    output = _Output(model, x)
    skips = _encode(model, x, output)
    chain = [skips.pop()]
    for block in model.blocks:
        chain.append(_block(block, chain[-1]))
    _decode(model, chain, skips, output)
    return output.values


def _encode(model: Any, x: Tensor, output: _Output | None, levels: int | None = None) -> list[Tensor]:
    """Features of the encoder's levels (of all, or of the first `levels`, at least two), without the first level.

    The first level's features are not stored; their contribution is added to `output`.
    """
    first, (down, *convs), *deeper = model.encoder[:levels]
    skips = [layer_by_layer(convs, _downsampled(first, down, x, output))]
    for stage in deeper:
        skips.append(layer_by_layer(stage, skips[-1]))
    return skips


def _downsampled(first: Sequence[Any], down: Any, x: Tensor, output: _Output | None) -> Tensor:
    """Computes the first level and the downsampling after it; adds the first level's contribution to `output`."""
    features = stored(x)
    for layer in first:
        features = convolved(layer, features)
    downsample = downsampling(down, x.dtype)
    kept = x.new_empty(x.shape[0] // 2, x.shape[1] // 2, down.out_channels)

    def pass_on(top: int, bottom: int) -> tuple[int, Tensor | None]:
        rows = features.within(2 * top, 2 * bottom + 1)
        downsample(rows, kept[top:bottom])
        return 2 * top, None if output is None else output.responses(rows[: 2 * (bottom - top)], output.of_skip)

    # A band reads 2 * rows + 1 rows of the features; these should just fit into whole blocks.
    rows = rows_of(banded.CHAIN_BYTES, features) // 2 - 1
    for top, responses in in_bands(pass_on, kept, max(1, rows), 1):
        if output is not None and responses is not None:
            output.add(top, responses)
    return kept


def _decode(model: Any, chain: list[Tensor], skips: list[Tensor], output: _Output) -> None:
    """Runs fusion and decoder, and completes the output; empties both lists to free their tensors."""
    parts = Joined([stored(features) for features in chain])
    first, *others = model.fusion
    x = convolved(first, parts).keep(parts)
    chain.clear()
    del parts
    x = layer_by_layer(others, x)
    *inner, last = model.decoder
    for stage in inner:
        parts = Joined([upsampled(stage.up, stored(x)), stored(skips.pop())])
        x = convolved(stage.merge, parts).keep(parts, size=banded.CHAIN_BYTES)
        del parts
    widest = upsampled(last.up, stored(x))
    check_same_size((widest.shape, output.values.shape))

    def finish(top: int, bottom: int) -> tuple[int, Tensor]:
        return top, output.responses(widest.within(top, bottom), output.of_up)

    rows = rows_of(banded.BAND_BYTES, widest)
    for top, responses in in_bands(finish, output.values, rows, 2 * banded.BLOCK, early=1):
        output.add(top, responses)


def _block(block: Any, x: Tensor, shape: Tensor | None = None) -> Tensor:
    if isinstance(block, nn.Sequential):
        return layer_by_layer(block, x)
    image = as_image(x)
    kernels = list(block.kernels)
    if shape is None and block.shape_attention is not None:
        shape = block.shape_attention(image)
    if shape is not None and shape.shape[2:] == (1, 1):
        # The leaky ReLU commutes with positive factors, so shape attention can be multiplied into the kernel.
        kernels = [kernel * shape.view(-1, 1, 1, 1) for kernel in kernels]
        shape = None
    if shared_kernel.suits(kernels, block.dilations):
        shape_of_all = (len(block.dilations), *x.shape[:2], len(kernels[0]))
        sums = x.new_zeros(shape_of_all, dtype=torch.float32)
        add_responses(x[None], kernels[0], block.dilations, sums[:, None])
        responses = list(sums)
    else:
        pairs = zip(kernels * (len(block.dilations) // len(kernels)), block.dilations, strict=True)
        responses = [_branch(kernel.to(x.dtype), dilation, stored(x)).keep() for kernel, dilation in pairs]
    scale = _scale_attention(block.scale_attention, x) if block.scale_attention is not None else None
    branches = _weighed(responses, scale, None if shape is None else channels_last(shape)[0].float(), x.dtype)
    return convolved(block.fusion, branches).keep(branches)


def _branch(kernel: Tensor, dilation: int, x: Rows) -> Rows:
    """Response of one branch's own kernel at one dilation, in float32."""
    reach = dilation * (kernel.shape[-1] // 2)

    def compute(top: int, bottom: int) -> Tensor:
        image = as_image(x(top - reach, bottom + reach))
        return F.conv2d(image, kernel, padding=(0, reach), dilation=dilation)[0].permute(1, 2, 0).float()

    return Rows((*x.shape[:2], len(kernel)), torch.float32, x.device, compute)


def _weighed(responses: Sequence[Tensor], scale: Tensor | None, shape: Tensor | None, dtype: torch.dtype) -> Rows:
    """Applies the activation to each branch's responses, and weighs them by the attentions; concatenates the branches.

    Shape: responses (rows, columns, filters) each, scale (rows, columns, branches), shape (rows, columns, filters).
    """
    height, width, filters = responses[0].shape
    weigh = _weigh(filters, scale is not None, shape is not None, dtype)

    def fill(top: int, bottom: int, rows: Tensor) -> None:
        attentions = [x if x is None else array(x) for x in (scale, shape)]
        for branch, values in enumerate(responses):
            weigh(array(values), *attentions, branch, top, array(rows))

    return Rows((height, width, len(responses) * filters), dtype, responses[0].device, fill=fill)


@lru_cache
def _weigh(filters: int, by_scale: bool, by_shape: bool, dtype: torch.dtype) -> Callable:
    """Compiles the loop of `_weighed` for one branch.

    Arguments of a call: responses; scale and shape attention (None if off); index of the branch; first row; target rows
    (rows, columns, branches * filters).
    """
    slope = np.float32(LEAKY_SLOPE)
    _, store = access(dtype)

    @compiled
    def weigh(responses, scale, shape, branch, top, rows):
        for row in range(rows.shape[0]):
            for x in range(rows.shape[1]):
                source, target = responses[top + row, x], rows[row, x, branch * filters :]
                factor = scale[top + row, x, branch] if by_scale else np.float32(1)
                if by_shape:
                    factors = shape[top + row, x]
                    for k in range(filters):
                        target[k] = store(max(source[k], slope * source[k]) * factor * factors[k])
                else:
                    for k in range(filters):
                        target[k] = store(max(source[k], slope * source[k]) * factor)

    return weigh


def _scale_attention(attention: Any, x: Tensor) -> Tensor:
    """Computes scale attention: (rows, columns, C) -> (rows, columns, branches) float32."""
    features = stored(layer_by_layer(attention.features, x))
    (weight, bias), reach = parameters_of(attention.weigh, x.dtype), attention.weigh.padding[0]

    def weigh(top: int, bottom: int) -> Tensor:
        image = as_image(features(top - reach, bottom + reach))
        return torch.sigmoid(F.conv2d(image, weight, bias, padding=(0, reach)).float())[0].permute(1, 2, 0)

    return Rows((*x.shape[:2], len(weight)), torch.float32, x.device, weigh).keep(features)
