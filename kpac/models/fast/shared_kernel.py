"""One kernel at several dilations, faster on a CPU: `KPACBlock.branches` says what is computed.

A kernel with taps W_k gives, at dilation d, the sum over k of W_k x(p + d k). The products W_k x are the same for every
dilation. So they are computed once, as one matrix product, and each dilation adds them up with other shifts: a fifth of
the multiplications of the paper's five convolutions. The gradients have the same form.

No general library can know that the five convolutions share their kernel. docs/benchmarks.md has what it gains.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from kpac.models.fast.compiled import access, array, compiled
from kpac.models.fast.parallel import channels_last, in_threads, spans, thread_count

PRODUCT_BYTES = 4 << 20  # of the products of a few rows with all taps
PIECE_COLUMNS = 128  # whose sums stay in the cache while products are added


def suits(kernels: Sequence[Tensor], dilations: Sequence[int]) -> bool:
    """Whether there are products to share."""
    return len(kernels) == 1 and len(dilations) > 1 and kernels[0].shape[-1] > 1


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
        sums = x.new_zeros(len(dilations), x.shape[0], *x.shape[2:], len(kernel))
        add_responses(channels_last(x), kernel, dilations, sums)
        return sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, kernel = ctx.saved_tensors
        of_images, of_kernel = _gradients(channels_last(x), kernel, ctx.dilations, gradient.contiguous())
        return of_images.permute(0, 3, 1, 2), of_kernel, None


def add_responses(images: Tensor, kernel: Tensor, dilations: Sequence[int], sums: Tensor) -> None:
    """Adds the products with all taps to the sums that they belong to.

    Args:
        images: (N, H, W, C), without gaps.
        kernel: (filters, C, size, size).
        dilations: D of them.
        sums: (D, N, H, W, filters) float32, without gaps.
    """
    (filters, _, _, side), taps = kernel.shape, _taps_of(kernel)
    add, _ = _sums(filters, side, tuple(dilations), images.dtype)
    target, height, reach = sums.flatten(3).numpy(), images.shape[1], side // 2 * max(dilations)

    def compute(piece: tuple[int, int, int]) -> None:
        image, top, bottom = piece
        for first, pixels, products in _portions(images[image], taps, top - reach, bottom + reach):
            torch.mm(pixels, taps, out=products)
            add(array(products.view(-1, images.shape[2] * taps.shape[1])), target[:, image], first, top, bottom)

    for _ in in_threads(compute, _pieces(len(images), height)):
        continue


def _gradients(images: Tensor, kernel: Tensor, dilations: Sequence[int], above: Tensor) -> tuple[Tensor, Tensor]:
    """The reverse of `add_responses`: from the gradient of its sums, those of the images and of the kernel."""
    (filters, channels, *_, side), taps = kernel.shape, _taps_of(kernel)
    _, collect = _sums(filters, side, tuple(dilations), images.dtype)
    source, of_images, turned = above.flatten(3).numpy(), torch.empty_like(images), taps.T

    def compute(piece: tuple[int, int, int]) -> Tensor:
        image, top, bottom = piece
        of_taps = torch.zeros_like(taps)
        for first, pixels, products in _portions(images[image], taps, top, bottom):
            collect(array(products.view(-1, images.shape[2] * taps.shape[1])), source, image, first)
            torch.mm(products, turned, out=of_images[image].flatten(0, 1)[first * images.shape[2] :][: len(pixels)])
            of_taps.addmm_(pixels.T, products)
        return of_taps

    of_taps = torch.zeros_like(taps)
    for part in in_threads(compute, _pieces(*images.shape[:2])):
        np.add(of_taps, part, out=of_taps.numpy())  # PyTorch would divide it, and its threads go on asking for more
    return of_images, of_taps.view(channels, side, side, filters).permute(3, 0, 1, 2)


@lru_cache
def _sums(filters: int, side: int, dilations: tuple[int, ...], dtype: torch.dtype) -> tuple[Callable, Callable]:
    """Each dilation's sums of products, and the reverse, for some rows of one image.

    Calls take: the products of rows from `first`, (rows, W * taps * filters), of this type; the sums in float32, (D, H,
    W * filters), or (D, N, H, W * filters) and which image; `first`; and the former, which rows it may change.
    """
    load, store = access(dtype)
    taps, half, branches, widest = side**2, side // 2, len(dilations), side // 2 * max(dilations)
    steps, piece = np.array(dilations), PIECE_COLUMNS

    @compiled
    def add(products, sums, first, top, bottom):
        width = sums.shape[2] // filters
        for row in range(products.shape[0]):
            for left in range(0, width, piece):
                for branch in range(branches):
                    step = steps[branch] * taps * filters + filters  # from a tap to the next one of its row
                    for down in range(side):
                        y = first + row - steps[branch] * (down - half)
                        if not top <= y < bottom:
                            continue
                        for x in range(left, min(left + piece, width)):
                            target = sums[branch, y, x * filters :]
                            if half * steps[branch] <= x < width - half * steps[branch]:
                                start = (x - half * steps[branch]) * taps + down * side
                                source = products[row, start * filters :]
                                for k in range(filters):
                                    value = target[k]
                                    for across in range(side):
                                        value += load(source[np.uintp(k + across * step)])
                                    target[k] = value
                                continue
                            for across in range(side):
                                place = x + steps[branch] * (across - half)
                                if 0 <= place < width:
                                    source = products[row, (place * taps + down * side + across) * filters :]
                                    for k in range(filters):
                                        target[k] += load(source[k])

    @compiled
    def collect(products, sums, image, first):
        height, width = sums.shape[2], sums.shape[3] // filters
        line, plane = width * filters, sums.shape[1] * height * width * filters
        values = sums.reshape(-1)
        for row in range(products.shape[0]):
            within = widest <= first + row < height - widest
            for tap in range(taps):
                down, across = tap // side - half, tap % side - half
                for x in range(width):
                    target = products[row, (x * taps + tap) * filters :]
                    if within and widest <= x < width - widest:
                        here = (image * height + first + row) * line + x * filters
                        for k in range(filters):
                            value = np.float32(0)
                            for branch in range(branches):
                                away = steps[branch] * (down * line + across * filters)
                                value += values[np.uintp(here + branch * plane - away + k)]
                            target[k] = store(value)
                        continue
                    total = np.zeros(filters, np.float32)
                    for branch in range(branches):
                        y, place = first + row - steps[branch] * down, x - steps[branch] * across
                        if 0 <= y < height and 0 <= place < width:
                            source = sums[branch, image, y, place * filters :]
                            for k in range(filters):
                                total[k] += source[k]
                    for k in range(filters):
                        target[k] = store(total[k])

    return add, collect


def _pieces(images: int, height: int) -> Iterator[tuple[int, int, int]]:
    """An image, first and last (excluded) row: at least one for each thread."""
    each = -(-thread_count() // max(1, images))
    for image in range(images):
        for top, bottom in spans(height, -(-height // each)):
            yield image, top, bottom


def _portions(image: Tensor, taps: Tensor, top: int, bottom: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """A few rows at a time, whose products stay in the cache.

    Args:
        image: (H, W, C).
        taps: (C, taps * filters).
        top, bottom: first and last (excluded) row, which may lie beyond the border.

    Yields:
        First row; its pixels, (rows * W, C); room for their products, (rows * W, taps * filters), which the next
        portion uses again.
    """
    top, bottom = max(top, 0), min(bottom, image.shape[0])
    rows = max(1, PRODUCT_BYTES // (taps.element_size() * image.shape[1] * taps.shape[1]))
    room = image.new_empty(min(rows, bottom - top) * image.shape[1], taps.shape[1])
    for first, last in spans(bottom - top, rows):
        pixels = image[top + first : top + last].flatten(0, 1)
        yield top + first, pixels, room[: len(pixels)]


def _taps_of(kernel: Tensor) -> Tensor:
    """(filters, C, size, size) -> (C, size * size * filters)."""
    return kernel.permute(1, 2, 3, 0).flatten(1).contiguous()
