"""The whole network without gradients, in bands of rows: `kpac.models.network` says what is computed.

Features are computed a few rows at a time, which stay in the processor's cache, and in memory that was used before. The
operating system clears every page that it maps anew, which takes longer than most layers do.

No features of full resolution are kept. The last convolution is linear in the encoder's skip: the skip's share of the
three output channels is added as soon as it is there.

Inside, features are (rows, columns, channels), the order in which convolutions need no copies.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kpac.models.fast import few_outputs, number_format, shared_kernel, winograd
from kpac.models.fast.allocator import freed_memory_kept
from kpac.models.fast.compiled import access, array, compiled
from kpac.models.fast.parallel import channels_last, in_threads, spans, thread_count, undivided
from kpac.models.fast.shared_kernel import add_responses
from kpac.models.layers import LEAKY_SLOPE, Conv, DownConv, UpConv, activation

BAND_BYTES = 4 << 20  # of the widest features of a band
CHAIN_BYTES = 10 << 20  # the same where several layers follow in a band, and compute some of its neighbours' rows, too
BLOCK = winograd.BLOCK  # rows that are computed together
ATTENTION = 2 * 32  # channels of two layers of scale attention

Result = TypeVar("Result")


def suits(model: nn.Module, x: Tensor, known: Collection[type]) -> bool:
    """Whether `residual` may stand in for the model's layers: all are of known types, and nobody hooks into them."""
    if torch.is_grad_enabled() or number_format(x) is None:
        return False
    return all(_is_known(module, known) for module in model.modules())


def _is_known(module: nn.Module, known: Collection[type]) -> bool:
    return type(module) in known and not module._forward_hooks and not module._forward_pre_hooks


@dataclass(frozen=True)
class _Rows:
    """Features that are computed a few rows at a time, when they are asked for; beyond the border they are zero.

    Args:
        shape: (rows, columns, channels).
        dtype: float32 or bfloat16.
        compute: first and last (excluded) row within the border -> these rows. Several threads call it at a time.
    """

    shape: tuple[int, int, int]
    dtype: torch.dtype
    compute: Callable[[int, int], Tensor]

    def __call__(self, top: int, bottom: int) -> Tensor:
        first, last = max(top, 0), min(bottom, self.shape[0])
        rows = self.compute(first, last)
        if (first, last) != (top, bottom):
            rows = F.pad(rows, (0, 0, 0, 0, first - top, bottom - last))
        return rows

    def keep(self, *reads: "_Rows", size: int = BAND_BYTES) -> Tensor:
        """All rows in memory.

        Args:
            reads: what a band reads and makes on the way, besides these rows.
            size: bytes of a band of the widest of them.
        """
        kept = torch.empty(self.shape, dtype=self.dtype)

        def store(top: int, bottom: int) -> None:
            kept[top:bottom] = self(top, bottom)

        rows = min(_rows_of(size, features) for features in (self, *reads))
        for _ in in_bands(store, self.shape[0], rows, BLOCK):
            continue
        return kept

    def bytes(self) -> int:
        """Of a row."""
        return self.shape[1] * self.shape[2] * self.dtype.itemsize


def _rows_of(size: int, rows: _Rows) -> int:
    """How many rows take about so many bytes, in whole blocks."""
    return max(1, size // (BLOCK * rows.bytes())) * BLOCK


def in_bands(function: Callable[[int, int], Result], height: int, rows: int, multiple: int) -> Iterator[Result]:
    """`function` of the first and the last (excluded) row of bands of about so many rows, in threads."""
    threads = thread_count()
    count = -(-height // (threads * rows)) * threads  # the same for each thread
    return in_threads(lambda span: function(*span), spans(height, -(-height // count), multiple))


def peak_values(model: nn.Module, height: int, width: int) -> int:
    """The most values that features of one image have in memory at one time, those of bands left out.

    Args:
        model: a KPACNet.
        height, width: of the image, in pixels.
    """
    levels = len(model.encoder)
    sizes = [-(-height // 2**level) * -(-width // 2**level) for level in range(levels)]
    channels = [stage[-1].out_channels for stage in model.encoder]
    image = sizes[0] * (2 * 3 * len(model.views) + 2 * 3)  # the views and in [-1, 1]; the residual and the output
    kept = [
        sum(size * count for size, count in zip(sizes[1:level], channels[1:level], strict=True))
        for level in range(1, levels)
    ]
    encoding = max(before + 2 * size * count for before, size, count in zip(kept, sizes[1:], channels[1:], strict=True))
    skips, deep, count = kept[-1], sizes[-1], channels[-1]
    blocks = len(model.blocks)
    widest = max((block.fusion.in_channels for block in model.blocks if hasattr(block, "fusion")), default=count)
    chain = skips + deep * ((blocks + 1) * count + widest + ATTENTION)
    return image + max(encoding, chain, skips + deep * (blocks + 2) * count)


def residual(model: nn.Module, x: Tensor) -> Tensor:
    """What `model.residual` gives, of the channels that the encoder reads, in [-1, 1].

    Shape: (N, 3 or 6, H, W) -> (N, 3, H, W) float32.
    """
    with freed_memory_kept(), undivided():
        return torch.stack([_residual(model, image) for image in _images(x)]).permute(0, 3, 1, 2)


def encode(model: nn.Module, x: Tensor) -> Tensor:
    """The deepest features that `model.encode` gives.

    Shape: (1, 3 or 6, H, W) -> (1, C, h, w), in channels-last order.
    """
    (image,) = _images(x)
    with undivided():
        return _image(_encode(model, image, None)[-1])


def apply_block(block: nn.Module, x: Tensor, shape: Tensor | None = None) -> Tensor:
    """What a block gives; see `KPACBlock` for `shape`.

    Shape: (1, C, h, w) -> (1, C, h, w), in channels-last order.
    """
    (features,) = channels_last(x)
    with undivided():
        return _image(_block(block, features, shape))


def decode(model: nn.Module, x: Tensor, chain: Sequence[Tensor]) -> Tensor:
    """The residual from the chain of the blocks; the skips are computed here.

    Shape: x (1, 3 or 6, H, W), and what the first block reads and every block gives, (1, C, h, w) -> (1, 3, H, W)
    float32.
    """
    (image,) = _images(x)
    with undivided():
        output = _Output(model, image)
        skips = _encode(model, image, output, levels=len(model.encoder) - 1)
        _decode(model, [channels_last(features)[0] for features in chain], skips, output)
        return _image(output.values)


def _images(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W, C), in the number format of the layers."""
    return channels_last(x.to(number_format(x)))


class _Output:
    """The residual of an image (H, W, 3 or 6), to which the last convolution adds what each part of its input gives."""

    def __init__(self, model: nn.Module, image: Tensor):
        stage = model.decoder[-1]
        weight = stage.merge.weight.to(image.dtype)
        parts = weight.split([stage.up.out_channels, stage.merge.in_channels - stage.up.out_channels], 1)
        self.of_up, self.of_skip = map(few_outputs.columns_of, parts)
        self.size = stage.merge.kernel_size[0]
        self.values = stage.merge.bias.repeat(*image.shape[:2], 1)  # (H, W, 3) float32

    def responses(self, features: Tensor, columns: Tensor) -> Tensor:
        """What some rows of features give for all rows that they reach, (rows, W, C) -> (rows + 4, W, columns).

        Args:
            columns: `of_up` or `of_skip`.
        """
        return F.conv2d(_image(features), columns, padding=(self.size - 1, 0))[0].permute(1, 2, 0)

    def add(self, top: int, responses: Tensor) -> None:
        """Adds the responses of the rows from `top`; from one thread, for the sums to be always rounded alike."""
        few_outputs.add_rows(responses, self.size, top - self.size // 2, self.values)


def _residual(model: nn.Module, x: Tensor) -> Tensor:
    """(H, W, 3 or 6) -> (H, W, 3)."""
    output = _Output(model, x)
    skips = _encode(model, x, output)
    chain = [skips.pop()]
    for block in model.blocks:
        chain.append(_block(block, chain[-1]))
    _decode(model, chain, skips, output)
    return output.values


def _encode(model: nn.Module, x: Tensor, output: _Output | None, levels: int | None = None) -> list[Tensor]:
    """The features of every level but the first, which is not kept, or of the first few; the output gets its share."""
    (first, second), *deeper = model.encoder[:levels]
    features = _convolved(second, _convolved(first, _stored(x)))
    downsample = _downsampling(deeper[0][0], x.dtype)
    kept = x.new_empty(x.shape[0] // 2, x.shape[1] // 2, deeper[0][0].out_channels)

    def pass_on(top: int, bottom: int) -> tuple[int, Tensor | None]:
        rows = features(2 * top, 2 * bottom + 1)
        kept[top:bottom] = downsample(rows)
        return 2 * top, None if output is None else output.responses(rows[: 2 * (bottom - top)], output.of_skip)

    # One row of the features more than twice the rows of a band should be as many as whole blocks have.
    rows = _rows_of(CHAIN_BYTES, features) // 2 - 1
    for top, responses in in_bands(pass_on, len(kept), max(1, rows), 1):
        if responses is not None:
            output.add(top, responses)
    x, skips = kept, []
    for index, (down, conv) in enumerate(deeper):
        if index:
            x = _downsampled(down, _stored(skips[-1])).keep()
        x = _convolved(conv, _stored(x)).keep()
        skips.append(x)
    return skips


def _decode(model: nn.Module, chain: list[Tensor], skips: list[Tensor], output: _Output) -> None:
    """Completes the output; both lists are emptied."""
    joined = _joined([_stored(features) for features in chain])
    x = _convolved(model.fusion[0], joined).keep(joined)
    chain.clear()
    del joined
    x = _convolved(model.fusion[1], _stored(x)).keep()
    *inner, last = model.decoder
    for stage in inner:
        joined = _joined([_upsampled(stage.up, _stored(x)), _stored(skips.pop())])
        x = _convolved(stage.merge, joined).keep(joined, size=CHAIN_BYTES)
        del joined
    upsampled = _upsampled(last.up, _stored(x))

    def finish(top: int, bottom: int) -> tuple[int, Tensor]:
        return top, output.responses(upsampled(top, bottom), output.of_up)

    for top, responses in in_bands(finish, upsampled.shape[0], _rows_of(BAND_BYTES, upsampled), BLOCK):
        output.add(top, responses)


def _block(block: nn.Module, x: Tensor, shape: Tensor | None = None) -> Tensor:
    if isinstance(block, nn.Sequential):
        for conv in block:
            x = _convolved(conv, _stored(x)).keep()
        return x
    image = _image(x)
    kernels = list(block.kernels)
    if shape is None and block.shape_attention is not None:
        shape = block.shape_attention(image)
    if shape is not None and shape.shape[2:] == (1, 1):
        # A factor above zero passes through the activation, so that it may stand before it, in the kernel.
        kernels = [kernel * shape.view(-1, 1, 1, 1) for kernel in kernels]
        shape = None
    if shared_kernel.suits(kernels, block.dilations):
        responses = torch.zeros(len(block.dilations), *x.shape[:2], len(kernels[0]))
        add_responses(x[None], kernels[0].to(x.dtype), block.dilations, responses[:, None])
    else:
        responses = [
            F.conv2d(image, kernel.to(x.dtype), padding=dilation * (kernel.shape[-1] // 2), dilation=dilation)
            for kernel, dilation in zip(kernels * (len(block.dilations) // len(kernels)), block.dilations, strict=True)
        ]
        responses = [channels_last(response)[0].float() for response in responses]
    scale = _scale_attention(block.scale_attention, x) if block.scale_attention is not None else None
    branches = _weighed(responses, scale, None if shape is None else channels_last(shape)[0].float(), x.dtype)
    return _convolved(block.fusion, branches).keep(branches)


def _weighed(responses: Sequence[Tensor], scale: Tensor | None, shape: Tensor | None, dtype: torch.dtype) -> _Rows:
    """The activation of each branch's responses, weighed by the attentions that are on, branch beside branch.

    Shape: responses (rows, columns, filters) each, scale (rows, columns, branches), shape (rows, columns, filters).
    """
    height, width, filters = responses[0].shape
    weigh = _weigh(filters, scale is not None, shape is not None, dtype)
    arrays, *attentions = (
        [array(values) for values in responses],
        *(x if x is None else array(x) for x in (scale, shape)),
    )

    def compute(top: int, bottom: int) -> Tensor:
        rows = torch.empty(bottom - top, width, len(arrays) * filters, dtype=dtype)
        for branch, values in enumerate(arrays):
            weigh(values, *attentions, branch, top, array(rows))
        return rows

    return _Rows((height, width, len(arrays) * filters), dtype, compute)


@lru_cache
def _weigh(filters: int, by_scale: bool, by_shape: bool, dtype: torch.dtype) -> Callable:
    """A call takes: responses, scale and shape attention (None where it is off), which branch, the first row, the rows
    (rows, columns, branches * filters) to put the weighed responses into."""
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


def _scale_attention(attention: nn.Module, x: Tensor) -> Tensor:
    """(rows, columns, C) -> (rows, columns, branches) float32."""
    for conv in attention.features:
        x = _convolved(conv, _stored(x)).keep()
    features, (weight, bias), reach = _stored(x), _parameters(attention.weigh, x.dtype), attention.weigh.padding[0]

    def weigh(top: int, bottom: int) -> Tensor:
        image = _image(features(top - reach, bottom + reach))
        return torch.sigmoid(F.conv2d(image, weight, bias, padding=(0, reach)).float())[0].permute(1, 2, 0)

    return _Rows((*x.shape[:2], len(weight)), torch.float32, weigh).keep(features)


def _stored(x: Tensor) -> _Rows:
    return _Rows(tuple(x.shape), x.dtype, lambda top, bottom: x[top:bottom])


def _joined(parts: Sequence[_Rows]) -> _Rows:
    rows, columns, _ = parts[0].shape
    shape = (rows, columns, sum(part.shape[2] for part in parts))
    return _Rows(shape, parts[0].dtype, lambda top, bottom: torch.cat([part(top, bottom) for part in parts], dim=2))


def _convolved(layer: Conv, x: _Rows) -> _Rows:
    reach = layer.padding[0]
    convolve = _transformed(layer, x.dtype) if winograd.suits(layer) else _convolution(layer, x.dtype)
    shape = (*x.shape[:2], layer.out_channels)
    return _Rows(shape, x.dtype, lambda top, bottom: convolve(x(top - reach, bottom + reach)))


def _downsampled(layer: DownConv, x: _Rows) -> _Rows:
    downsample = _downsampling(layer, x.dtype)
    shape = (x.shape[0] // 2, x.shape[1] // 2, layer.out_channels)
    return _Rows(shape, x.dtype, lambda top, bottom: downsample(x(2 * top, 2 * bottom + 1)))


def _upsampled(layer: UpConv, x: _Rows) -> _Rows:
    weight, bias = _parameters(layer, x.dtype)

    def compute(top: int, bottom: int) -> Tensor:
        first, last = top // 2, -(-bottom // 2)
        image = _image(x(first - 1, last + 1))
        rows = F.conv_transpose2d(image, weight, bias, layer.stride, padding=(3, layer.padding[1]))
        return activation(rows)[0].permute(1, 2, 0)[top - 2 * first : bottom - 2 * first]

    return _Rows((2 * x.shape[0], 2 * x.shape[1], layer.out_channels), x.dtype, compute)


def _transformed(layer: Conv, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    convolution = winograd.Convolution(layer.weight, layer.bias, layer.dilation[0], LEAKY_SLOPE, dtype)
    return lambda rows: convolution(rows, layer.padding[0])


def _convolution(layer: Conv, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A layer and its activation on rows that hold their vertical padding, as are those of `_downsampling`."""
    weight, bias = _parameters(layer, dtype)
    options = {"padding": (0, layer.padding[1]), "dilation": layer.dilation}
    return lambda rows: activation(F.conv2d(_image(rows), weight, bias, **options))[0].permute(1, 2, 0)


def _downsampling(layer: DownConv, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    weight, bias = _parameters(layer, dtype)

    def downsample(rows: Tensor) -> Tensor:
        # Two zeros at both sides, and the first column dropped, is one zero at the right without a copy.
        image = F.conv2d(_image(rows), weight, bias, layer.stride, padding=(0, 2))[..., 1:]
        return activation(image)[0].permute(1, 2, 0)

    return downsample


def _parameters(layer: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias."""
    return layer.weight.to(dtype), layer.bias.to(dtype)


def _image(features: Tensor) -> Tensor:
    """(H, W, C) -> (1, C, H, W), in an order that PyTorch knows as channels last."""
    return features[None].permute(0, 3, 1, 2)  # not permuted first: the stride of the new dimension would be another
