"""One kernel at several dilations, faster on a CPU: `KPACBlock.branches` says what is computed.

A kernel with taps W_k gives, at dilation d, the sum over k of W_k x(p + d k). The products W_k x are the same for every
dilation. So they are computed once, as one matrix product, and each dilation adds them up with other shifts: a fifth of
the multiplications of the paper's five convolutions. The gradients have the same form.

No general library can know that the five convolutions share their kernel. docs/benchmarks.md has what it gains.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from kpac.models.fast import is_plain

PRODUCT_BYTES = 16 << 20  # of the products of a band of rows with all taps


def suits(x: Tensor, kernels: Sequence[Tensor], dilations: Sequence[int]) -> bool:
    """Whether `shared_branches` may stand in for a convolution per dilation, and saves anything."""
    return is_plain(x) and len(kernels) == 1 and len(dilations) > 1 and kernels[0].shape[-1] > 1


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
        taps = taps_of(kernel)
        sums = x.new_zeros(len(dilations), x.shape[0], *x.shape[2:], taps.shape[2])
        add_responses(channels_last(x), taps, dilations, sums)
        return sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, kernel = ctx.saved_tensors
        taps = taps_of(kernel)
        of_taps = torch.zeros_like(taps)
        images = channels_last(x)
        of_images = torch.zeros_like(images)
        _add_gradients(images, taps, ctx.dilations, gradient.contiguous(), of_images, of_taps)
        of_kernel = of_taps.unflatten(0, kernel.shape[2:]).permute(3, 2, 0, 1)
        return of_images.permute(0, 3, 1, 2), of_kernel, None


def add_responses(images: Tensor, taps: Tensor, dilations: Sequence[int], sums: Tensor) -> None:
    """The products of a portion of the images with all taps, each added to the sums that it belongs to.

    Args:
        images: (N, H, W, C).
        taps: (taps, C, filters).
        dilations: D of them.
        sums: (D, N, H, W, filters).
    """
    (_, height, width, channels), (count, _, filters) = images.shape, taps.shape
    for chosen, top, bottom, flat in _portions(images, taps):
        torch.matmul(images[chosen, top:bottom].reshape(1, -1, channels), taps, out=flat)
        products = flat.view(count, -1, bottom - top, width, filters)
        for branch, dilation in enumerate(dilations):
            for tap, here, there in shifts(height, width, top, bottom, count, dilation):
                sums[(branch, chosen, *there)].add_(products[(tap, slice(None), *here)])


def _add_gradients(
    images: Tensor, taps: Tensor, dilations: Sequence[int], above: Tensor, of_images: Tensor, of_taps: Tensor
) -> None:
    """The reverse of `add_responses`: `above` is the gradient of its sums; the others collect those of its inputs."""
    (_, height, width, channels), (count, _, filters) = images.shape, taps.shape
    for chosen, top, bottom, flat in _portions(images, taps):
        products = flat.zero_().view(count, -1, bottom - top, width, filters)
        for branch, dilation in enumerate(dilations):
            for tap, here, there in shifts(height, width, top, bottom, count, dilation):
                products[(tap, slice(None), *here)].add_(above[(branch, chosen, *there)])
        pixels, of_pixels = (values[chosen, top:bottom].view(-1, channels) for values in (images, of_images))
        for product, tap in zip(flat, taps, strict=True):
            of_pixels.addmm_(product, tap.T)
        of_taps.baddbmm_(pixels.T.expand(count, -1, -1), flat)


def taps_of(kernel: Tensor) -> Tensor:
    """(filters, C, size, size) -> (size * size, C, filters)."""
    return kernel.permute(2, 3, 1, 0).flatten(0, 1).contiguous()


def _portions(images: Tensor, taps: Tensor) -> Iterator[tuple[slice, int, int, Tensor]]:
    """Whose products are computed together: a few rows of a large image, or several small images.

    Yields:
        Which images; their first and last (excluded) row; room for the products, (taps, pixels, filters), which the
        next portion uses again.
    """
    (number, height, width, _), (count, _, filters) = images.shape, taps.shape
    rows = max(1, PRODUCT_BYTES // (taps.element_size() * width * count * filters))
    together = max(1, rows // height)
    room = images.new_empty(count * min(together, number) * min(rows, height) * width * filters)
    for first, last in spans(number, together):
        for top, bottom in spans(height, rows):
            pixels = (last - first) * (bottom - top) * width
            yield slice(first, last), top, bottom, room[: count * pixels * filters].view(count, pixels, filters)


def shifts(
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


def channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W, C), without gaps."""
    return x.permute(0, 2, 3, 1).contiguous()


def spans(size: int, most: int, even: bool = False) -> Iterator[tuple[int, int]]:
    """Cuts of about equal size, none above `most`; at even places on demand."""
    count = -(-size // most)
    cuts = [size * index // count for index in range(count + 1)]
    if even:
        cuts = sorted({cut - cut % 2 for cut in cuts[:-1]} | {size})
    yield from pairwise(cuts)
