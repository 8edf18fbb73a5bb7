"""The whole network without gradients, in bands of rows: `kpac.models.network` says what is computed.

Features are computed a few rows at a time, which stay in the processor's cache, and in memory that was used before. The
operating system clears every page that it maps anew, which takes longer than most layers do.

No features of full resolution are kept. The last convolution is linear in the encoder's skip: the skip's share of the
three output channels is added as soon as it is there.

Inside, features are (rows, columns, channels), the order in which convolutions need no copies.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kpac.models.fast import few_outputs, is_plain, shared_kernel, winograd
from kpac.models.fast.shared_kernel import add_responses, channels_last, spans, taps_of
from kpac.models.layers import LEAKY_SLOPE, Conv, DownConv, UpConv, activation

BAND_BYTES = 4 << 20  # of the widest features of a band


def suits(model: nn.Module, x: Tensor, known: Collection[type]) -> bool:
    """Whether `residual` may stand in for the model's layers: all are of known types, and nobody hooks into them."""
    return not torch.is_grad_enabled() and is_plain(x) and all(_is_known(module, known) for module in model.modules())


def _is_known(module: nn.Module, known: Collection[type]) -> bool:
    return type(module) in known and not module._forward_hooks and not module._forward_pre_hooks


@dataclass(frozen=True)
class _Rows:
    """Features of `height` rows that are computed when they are asked for; beyond the border they are zero.

    Args:
        height: rows.
        compute: first and last (excluded) row within the border -> (rows, columns, channels).
    """

    height: int
    compute: Callable[[int, int], Tensor]

    def __call__(self, top: int, bottom: int) -> Tensor:
        first, last = max(top, 0), min(bottom, self.height)
        rows = self.compute(first, last)
        if (first, last) != (top, bottom):
            rows = F.pad(rows, (0, 0, 0, 0, first - top, bottom - last))
        return rows

    def bands(self, values: int) -> Iterator[tuple[int, int, Tensor]]:
        """All rows, band by band; `values` is the number of values a row of the widest features on the way."""
        for top, bottom in spans(self.height, max(8, BAND_BYTES // (4 * values)), even=True):
            yield top, bottom, self(top, bottom)

    def keep(self, values: int) -> Tensor:
        """All rows in memory."""
        kept = None
        for top, bottom, rows in self.bands(values):
            if kept is None:
                kept = rows.new_empty(self.height, *rows.shape[1:])
            kept[top:bottom] = rows
        return kept


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
    chain = skips + deep * ((blocks + 1) * count + widest + count // 2)
    return image + max(encoding, chain, skips + deep * (blocks + 2) * count)


def residual(model: nn.Module, x: Tensor) -> Tensor:
    """What `model.residual` gives, of the channels that the encoder reads, in [-1, 1].

    Shape: (N, 3 or 6, H, W) -> (N, 3, H, W).
    """
    return torch.stack([_residual(model, image) for image in channels_last(x)])


def encode(model: nn.Module, x: Tensor) -> Tensor:
    """The deepest features that `model.encode` gives.

    Shape: (1, 3 or 6, H, W) -> (1, C, h, w), in channels-last order.
    """
    (image,) = channels_last(x)
    return _image(_encode(model, image, None)[-1])


def apply_block(block: nn.Module, x: Tensor, shape: Tensor | None = None) -> Tensor:
    """What a block gives; see `KPACBlock` for `shape`.

    Shape: (1, C, h, w) -> (1, C, h, w), in channels-last order.
    """
    (features,) = channels_last(x)
    return _image(_block(block, features, shape))


def decode(model: nn.Module, x: Tensor, chain: Sequence[Tensor]) -> Tensor:
    """The residual from the chain of the blocks; the skips are computed here.

    Shape: x (1, 3 or 6, H, W), and what the first block reads and every block gives, (1, C, h, w) -> (1, 3, H, W).
    """
    (image,) = channels_last(x)
    output = _Output(model, image)
    skips = _encode(model, image, output, levels=len(model.encoder) - 1)
    _decode(model, [channels_last(features)[0] for features in chain], skips, output)
    return output.values[None]


class _Output:
    """The residual of an image (H, W, 3 or 6), to which the last convolution adds what each part of its input gives."""

    def __init__(self, model: nn.Module, image: Tensor):
        stage = model.decoder[-1]
        parts = stage.merge.weight.split([stage.up.out_channels, stage.merge.in_channels - stage.up.out_channels], 1)
        self.of_up, self.of_skip = map(few_outputs.columns_of, parts)
        self.values = stage.merge.bias.view(-1, 1, 1).repeat(1, *image.shape[:2])  # (3, H, W)

    def add(self, features: Tensor, columns: Tensor, top: int) -> None:
        """Adds what some rows of features give.

        Args:
            features: (rows, W, C), rows from `top`.
            columns: `of_up` or `of_skip`.
            top: first row.
        """
        size = columns.shape[2]
        responses = F.conv2d(_image(features), columns, padding=(size - 1, 0))[0].contiguous()
        first = top - size // 2  # the row of the output that the first row of responses belongs to
        rows = slice(max(first, 0), min(first + responses.shape[1], self.values.shape[1]))
        responses = responses[:, rows.start - first : rows.stop - first]
        few_outputs.add_responses(responses, size, self.values[:, rows])


def _residual(model: nn.Module, x: Tensor) -> Tensor:
    """(H, W, 3 or 6) -> (3, H, W)."""
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
    widest = x.shape[1] * second.out_channels
    features = _convolved(second, _convolved(first, _stored(x)))

    def pass_on(top: int, bottom: int) -> Tensor:
        rows = features(2 * top, 2 * bottom + 1)
        if output is not None:
            output.add(rows[: 2 * (bottom - top)], output.of_skip, 2 * top)
        return _convolve(deeper[0][0], rows)

    x = _Rows(x.shape[0] // 2, pass_on).keep(2 * widest)
    skips = []
    for index, (_, conv) in enumerate(deeper):
        if index:
            x = _downsampled(deeper[index][0], _stored(skips[-1])).keep(_values(skips[-1]) * 2)
        x = _convolved(conv, _stored(x)).keep(_values(x))
        skips.append(x)
    return skips


def _decode(model: nn.Module, chain: list[Tensor], skips: list[Tensor], output: _Output) -> None:
    """Completes the output; both lists are emptied."""
    widths = _values(*chain)
    x = _convolved(model.fusion[0], _joined([_stored(features) for features in chain])).keep(widths)
    chain.clear()
    x = _convolved(model.fusion[1], _stored(x)).keep(_values(x))
    *inner, last = model.decoder
    for stage in inner:
        merged = _convolved(stage.merge, _joined([_upsampled(stage.up, _stored(x)), _stored(skips[-1])]))
        x = merged.keep(2 * _values(skips.pop()))
    upsampled = _upsampled(last.up, _stored(x))
    for top, _, rows in upsampled.bands(2 * x.shape[1] * last.up.out_channels):
        output.add(rows, output.of_up, top)


def _block(block: nn.Module, x: Tensor, shape: Tensor | None = None) -> Tensor:
    if isinstance(block, nn.Sequential):
        for conv in block:
            x = _convolved(conv, _stored(x)).keep(_values(x))
        return x
    image = _image(x)
    kernels = list(block.kernels)
    if shape is None and block.shape_attention is not None:
        shape = block.shape_attention(image)
    if shape is not None and shape.shape[2:] == (1, 1):
        # A factor above zero passes through the activation, so that it may stand before it, in the kernel.
        kernels = [kernel * shape.view(-1, 1, 1, 1) for kernel in kernels]
        shape = None
    if shared_kernel.suits(image, kernels, block.dilations):
        taps = taps_of(kernels[0])
        responses = x.new_zeros(len(block.dilations), *x.shape[:2], taps.shape[2])
        add_responses(x[None], taps, block.dilations, responses[:, None])
    else:
        responses = [
            F.conv2d(image, kernel, padding=dilation * (kernel.shape[-1] // 2), dilation=dilation)[0].permute(1, 2, 0)
            for kernel, dilation in zip(kernels * (len(block.dilations) // len(kernels)), block.dilations, strict=True)
        ]
    weights = block.scale_attention(image)[0] if block.scale_attention is not None else None
    filters = len(kernels[0])

    def weighed(top: int, bottom: int) -> Tensor:
        rows = x.new_empty(bottom - top, x.shape[1], len(responses) * filters)
        for branch, place in enumerate(rows.split(filters, dim=2)):
            response = F.leaky_relu(responses[branch][top:bottom], LEAKY_SLOPE)
            if shape is not None:
                response *= shape[0, :, top:bottom].permute(1, 2, 0)
            place.copy_(response) if weights is None else torch.mul(
                response, weights[branch, top:bottom, :, None], out=place
            )
        return rows

    return _convolved(block.fusion, _Rows(x.shape[0], weighed)).keep(x.shape[1] * len(responses) * filters)


def _stored(x: Tensor) -> _Rows:
    return _Rows(x.shape[0], lambda top, bottom: x[top:bottom])


def _joined(parts: Sequence[_Rows]) -> _Rows:
    return _Rows(parts[0].height, lambda top, bottom: torch.cat([part(top, bottom) for part in parts], dim=2))


def _convolved(layer: Conv, x: _Rows) -> _Rows:
    reach = layer.padding[0]
    convolve = winograd.Convolution(layer, LEAKY_SLOPE) if winograd.suits(layer) else partial(_convolve, layer)
    return _Rows(x.height, lambda top, bottom: convolve(x(top - reach, bottom + reach)))


def _downsampled(layer: DownConv, x: _Rows) -> _Rows:
    return _Rows(x.height // 2, lambda top, bottom: _convolve(layer, x(2 * top, 2 * bottom + 1)))


def _upsampled(layer: UpConv, x: _Rows) -> _Rows:
    def compute(top: int, bottom: int) -> Tensor:
        first, last = top // 2, -(-bottom // 2)
        image = _image(x(first - 1, last + 1))
        rows = F.conv_transpose2d(image, layer.weight, layer.bias, layer.stride, padding=(3, layer.padding[1]))
        return activation(rows)[0].permute(1, 2, 0)[top - 2 * first : bottom - 2 * first]

    return _Rows(2 * x.height, compute)


def _convolve(layer: nn.Conv2d, rows: Tensor) -> Tensor:
    """A layer and its activation on rows that hold their vertical padding."""
    image = _image(rows)
    if isinstance(layer, DownConv):
        # Two zeros at both sides, and the first column dropped, is one zero at the right without a copy.
        image = F.conv2d(image, layer.weight, layer.bias, layer.stride, padding=(0, 2))[..., 1:]
    else:
        image = F.conv2d(image, layer.weight, layer.bias, padding=(0, layer.padding[1]), dilation=layer.dilation)
    return activation(image)[0].permute(1, 2, 0)


def _image(features: Tensor) -> Tensor:
    """(H, W, C) -> (1, C, H, W), in an order that PyTorch knows as channels last."""
    return features[None].permute(0, 3, 1, 2)  # not permuted first: the stride of the new dimension would be another


def _values(*features: Tensor) -> int:
    """Values a row."""
    return sum(part[0].numel() for part in features)
