"""The same network, faster on a CPU.

Nobody needs this file to understand KPAC: `kpac.py` and `network.py` say what is computed, and the tests hold this file
to them, in values and in gradients. Three ideas (docs/benchmarks.md has the gain of each, and what was tried):

- **Kernel sharing is an identity.** A kernel with taps W_k gives, at dilation d, the sum over k of W_k x(p + d k). The
  products W_k x are the same for every dilation. So they are computed once, as one matrix product, and each dilation
  adds them up with other shifts: a fifth of the multiplications. The gradients have the same form.
- **Bands.** Features are computed a few rows at a time, which stay in the processor's cache, and in memory that was
  used before. The operating system clears every page that it maps anew, which takes longer than most layers do.
- **No features of full resolution are kept.** The last convolution is linear in the encoder's skip: the skip's share
  of the three output channels is added as soon as it is there.

Inside, features are (rows, columns, channels), the order in which convolutions need no copies.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kpac.models.layers import LEAKY_SLOPE, Conv, DownConv, UpConv, activation

BAND_BYTES = 4 << 20  # of the widest features of a band
PRODUCT_BYTES = 16 << 20  # of the products of a band with all taps


def suits(model: nn.Module, x: Tensor, known: Collection[type]) -> bool:
    """Whether `residual` may stand in for the model's layers: all are of known types, and nobody hooks into them."""
    return not torch.is_grad_enabled() and _is_plain(x) and all(_is_known(module, known) for module in model.modules())


def suits_branches(x: Tensor, kernels: Sequence[Tensor], dilations: Sequence[int]) -> bool:
    """Whether `shared_branches` may stand in for a convolution per dilation, and saves anything."""
    return _is_plain(x) and len(kernels) == 1 and len(dilations) > 1 and kernels[0].shape[-1] > 1


def _is_plain(x: Tensor) -> bool:
    """float32 on a CPU, for this moment: no autocast, no tracing, compiling or exporting."""
    is_traced = torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) is not Tensor
    return (
        x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu") and not is_traced
    )


def _is_known(module: nn.Module, known: Collection[type]) -> bool:
    return type(module) in known and not module._forward_hooks and not module._forward_pre_hooks


# The shared kernel


def shared_branches(x: Tensor, kernel: Tensor, dilations: Sequence[int]) -> Tensor:
    """The kernel's response at each dilation, before the activation, with gradients.

    Shape: x (N, C, H, W), kernel (filters, C, size, size) -> (dilations, N, filters, H, W).
    """
    return _SharedKernel.apply(x, kernel, tuple(dilations)).permute(0, 1, 4, 2, 3)


class _SharedKernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, kernel: Tensor, dilations: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.dilations = dilations
        taps = _taps(kernel)
        sums = x.new_zeros(len(dilations), x.shape[0], *x.shape[2:], taps.shape[2])
        for image, places in zip(_channels_last(x), sums.unbind(1), strict=True):
            _add_responses(image, taps, dilations, places)
        return sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, kernel = ctx.saved_tensors
        taps = _taps(kernel)
        of_taps = torch.zeros_like(taps)
        images = _channels_last(x)
        of_images = torch.zeros_like(images)
        above = gradient.contiguous().unbind(1)
        for image, of_image, above_image in zip(images, of_images, above, strict=True):
            _add_gradients(image, taps, ctx.dilations, above_image, of_image, of_taps)
        of_kernel = of_taps.unflatten(0, kernel.shape[2:]).permute(3, 2, 0, 1)
        return of_images.permute(0, 3, 1, 2), of_kernel, None


def _add_responses(image: Tensor, taps: Tensor, dilations: Sequence[int], sums: Tensor) -> None:
    """The products of a few rows with all taps, each added to the sums that it belongs to.

    Args:
        image: (H, W, C).
        taps: (taps, C, filters).
        dilations: D of them.
        sums: (D, H, W, filters).
    """
    (height, width, channels), (count, _, filters) = image.shape, taps.shape
    rows = _product_rows(width, taps)
    room = image.new_empty(count, min(rows, height) * width, filters)
    for top, bottom in _spans(height, rows):
        products = room[:, : (bottom - top) * width]
        torch.matmul(image[top:bottom].reshape(1, -1, channels), taps, out=products)
        products = products.unflatten(1, (bottom - top, width))
        for branch, dilation in enumerate(dilations):
            for tap, here, there in _shifts(height, width, top, bottom, count, dilation):
                sums[(branch, *there)].add_(products[(tap, *here)])


def _add_gradients(
    image: Tensor, taps: Tensor, dilations: Sequence[int], above: Tensor, of_image: Tensor, of_taps: Tensor
) -> None:
    """The reverse of `_add_responses`: `above` is the gradient of its sums; the others collect those of its inputs."""
    (height, width, channels), (count, _, filters) = image.shape, taps.shape
    rows = _product_rows(width, taps)
    room = image.new_empty(count, min(rows, height) * width, filters)
    for top, bottom in _spans(height, rows):
        flat = room[:, : (bottom - top) * width].zero_()
        products = flat.unflatten(1, (bottom - top, width))
        for branch, dilation in enumerate(dilations):
            for tap, here, there in _shifts(height, width, top, bottom, count, dilation):
                products[(tap, *here)].add_(above[(branch, *there)])
        pixels, of_pixels = (rows[top:bottom].reshape(-1, channels) for rows in (image, of_image))
        for product, tap in zip(flat, taps, strict=True):
            of_pixels.addmm_(product, tap.T)
        of_taps.baddbmm_(pixels.T.expand(count, -1, -1), flat)


def _taps(kernel: Tensor) -> Tensor:
    """(filters, C, size, size) -> (size * size, C, filters)."""
    return kernel.permute(2, 3, 1, 0).flatten(0, 1).contiguous()


def _product_rows(width: int, taps: Tensor) -> int:
    return max(1, PRODUCT_BYTES // (taps.element_size() * width * taps.shape[0] * taps.shape[2]))


def _shifts(
    height: int, width: int, top: int, bottom: int, taps: int, dilation: int
) -> Iterator[tuple[int, tuple[slice, slice], tuple[slice, slice]]]:
    """Where the products of rows `top` to `bottom` are summed.

    Yields:
        A tap; the rows, counted from `top`, and the columns of its products; the rows and columns of their sums. Sums
        beyond the border are left out, which is zero padding.
    """
    side = round(taps**0.5)
    for tap in range(taps):
        down, right = (dilation * (place - side // 2) for place in divmod(tap, side))
        first, last = max(top, down), min(bottom, height + down)
        left, end = max(0, right), min(width, width + right)
        if first < last and left < end:
            here = slice(first - top, last - top), slice(left, end)
            yield tap, here, (slice(first - down, last - down), slice(left - right, end - right))


# The network in bands of rows


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
        for top, bottom in _spans(self.height, max(8, BAND_BYTES // (4 * values)), even=True):
            yield top, bottom, self(top, bottom)

    def keep(self, values: int) -> Tensor:
        """All rows in memory."""
        kept = None
        for top, bottom, rows in self.bands(values):
            if kept is None:
                kept = rows.new_empty(self.height, *rows.shape[1:])
            kept[top:bottom] = rows
        return kept


def residual(model: nn.Module, x: Tensor) -> Tensor:
    """What `model.residual` gives, of the channels that the encoder reads, in [-1, 1].

    Shape: (N, 3 or 6, H, W) -> (N, 3, H, W).
    """
    return torch.stack([_residual(model, image) for image in _channels_last(x)])


def _residual(model: nn.Module, x: Tensor) -> Tensor:
    """(H, W, 3 or 6) -> (3, H, W)."""
    up, merge = model.decoder[-1].up, model.decoder[-1].merge
    of_up, of_skip = merge.weight.split([up.out_channels, merge.in_channels - up.out_channels], dim=1)
    output = merge.bias.view(-1, 1, 1).repeat(1, *x.shape[:2])

    skips, x = _encode(model, x, lambda top, skip: _add_share(skip, of_skip, top, output))
    chain = [x]
    for block in model.blocks:
        chain.append(_block(block, chain[-1]))
    x = _convolved(model.fusion[0], _joined([_stored(features) for features in chain])).keep(_values(*chain))
    del chain
    x = _convolved(model.fusion[1], _stored(x)).keep(_values(x))
    for stage in model.decoder[:-1]:
        merged = _convolved(stage.merge, _joined([_upsampled(stage.up, _stored(x)), _stored(skips[-1])]))
        x = merged.keep(2 * _values(skips.pop()))
    upsampled = _upsampled(up, _stored(x))
    for top, _, rows in upsampled.bands(2 * x.shape[1] * up.out_channels):
        _add_share(rows, of_up, top, output)
    return output


def _encode(model: nn.Module, x: Tensor, use_first: Callable[[int, Tensor], None]) -> tuple[list[Tensor], Tensor]:
    """The skips except the first, of which `use_first` gets band after band, and the deepest features."""
    (first, second), *deeper = model.encoder
    widest = x.shape[1] * second.out_channels
    features = _convolved(second, _convolved(first, _stored(x)))

    def pass_on(top: int, bottom: int) -> Tensor:
        rows = features(2 * top, 2 * bottom + 1)
        use_first(2 * top, rows[: 2 * (bottom - top)])
        return _convolve(deeper[0][0], rows)

    x = _Rows(x.shape[0] // 2, pass_on).keep(2 * widest)
    skips = []
    for index, (_, conv) in enumerate(deeper):
        if index:
            x = _downsampled(deeper[index][0], _stored(skips[-1])).keep(_values(skips[-1]) * 2)
        x = _convolved(conv, _stored(x)).keep(_values(x))
        skips.append(x)
    return skips[:-1], skips[-1]


def _block(block: nn.Module, x: Tensor) -> Tensor:
    if isinstance(block, nn.Sequential):
        for conv in block:
            x = _convolved(conv, _stored(x)).keep(_values(x))
        return x
    image = _image(x)
    kernels = list(block.kernels)
    shape = block.shape_attention(image) if block.shape_attention is not None else None
    if shape is not None and shape.shape[2:] == (1, 1):
        # A factor above zero passes through the activation, so that it may stand before it, in the kernel.
        kernels = [kernel * shape.view(-1, 1, 1, 1) for kernel in kernels]
        shape = None
    if suits_branches(image, kernels, block.dilations):
        taps = _taps(kernels[0])
        responses = x.new_zeros(len(block.dilations), *x.shape[:2], taps.shape[2])
        _add_responses(x, taps, block.dilations, responses)
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


def _add_share(features: Tensor, weight: Tensor, top: int, output: Tensor) -> None:
    """Adds a convolution with few output channels, which leaves most of the processor's vector units idle.

    As products with all taps and shifted sums, as above, it takes half the time.

    Args:
        features: (rows, W, C), rows from `top`.
        weight: (3, C, size, size).
        output: (3, H, W).
    """
    rows, width, channels = features.shape
    taps = weight.permute(2, 3, 0, 1).reshape(-1, channels)
    products = (taps @ features.reshape(-1, channels).T).view(-1, len(output), rows, width)
    for tap, here, there in _shifts(*output.shape[1:], top, top + rows, len(products), 1):
        output[(slice(None), *there)].add_(products[(tap, slice(None), *here)])


def _stored(x: Tensor) -> _Rows:
    return _Rows(x.shape[0], lambda top, bottom: x[top:bottom])


def _joined(parts: Sequence[_Rows]) -> _Rows:
    return _Rows(parts[0].height, lambda top, bottom: torch.cat([part(top, bottom) for part in parts], dim=2))


def _convolved(layer: Conv, x: _Rows) -> _Rows:
    reach = layer.padding[0]
    return _Rows(x.height, lambda top, bottom: _convolve(layer, x(top - reach, bottom + reach)))


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


def _channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W, C), without gaps."""
    return x.permute(0, 2, 3, 1).contiguous()


def _values(*features: Tensor) -> int:
    """Values a row."""
    return sum(part[0].numel() for part in features)


def _spans(size: int, most: int, even: bool = False) -> Iterator[tuple[int, int]]:
    """Cuts of about equal size, none above `most`; at even places on demand."""
    count = -(-size // most)
    cuts = [size * index // count for index in range(count + 1)]
    if even:
        cuts = sorted({cut - cut % 2 for cut in cuts[:-1]} | {size})
    yield from pairwise(cuts)
