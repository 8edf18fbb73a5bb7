"""One kernel at several dilations, faster on a CPU; the same computation as `KPACBlock.branches`.

At dilation d, the output of a kernel with taps W_k is the sum over k of W_k x(p + d k). The products W_k x are the same
for every dilation. So they are computed once, as one matrix product, and each dilation sums them with its own shifts.
This takes a fifth of the multiplications of the paper's five convolutions. The gradients have the same form.

A general library cannot do this, as it does not know that the convolutions share their kernel. docs/benchmarks.md
reports the gain.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from kpac.cpu.compiled import compiled
from kpac.cpu.instructions import fill_registers
from kpac.cpu.parallel import channels_last, in_threads, spans
from kpac.cpu.vectors import in_pairs, linear, product


def suits(kernels: Sequence[Tensor], dilations: Sequence[int]) -> bool:
    """Whether the dilations share a kernel on a CPU, and its channels fill whole vector registers."""
    filters, channels, _, size = kernels[0].shape
    shared = len(kernels) == 1 and len(dilations) > 1 and size > 1
    return shared and kernels[0].is_cpu and fill_registers(filters, channels)


def shared_branches(x: Tensor, kernel: Tensor, dilations: Sequence[int]) -> Tensor:
    """Computes the kernel's response at each dilation, before the activation, with gradients.

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
        grad_images, grad_kernel = _gradients(channels_last(x), kernel, ctx.dilations, gradient.contiguous())
        return grad_images.permute(0, 3, 1, 2), grad_kernel, None


def add_responses(images: Tensor, kernel: Tensor, dilations: Sequence[int], sums: Tensor) -> None:
    """Adds the kernel's response at each dilation to `sums`.

    Args:
        images: (N, H, W, C), contiguous.
        kernel: (filters, C, size, size).
        dilations: D dilations.
        sums: (D, N, H, W, filters) float32, contiguous.
    """
    height, width, channels = images.shape[1:]
    taps = _taps_of(kernel.to(images.dtype))
    respond, reach = _respond(kernel.shape[-1], tuple(dilations), images.dtype), kernel.shape[-1] // 2 * max(dilations)
    shape, plane = (height, width, channels, len(kernel)), 4 * sums.stride(0)

    def compute(piece: tuple[int, int, int]) -> None:
        image, top, bottom = piece
        room = torch.empty(kernel.shape[-1] * width * len(kernel), dtype=torch.float32, device="cpu")
        rows = (max(0, top - reach), min(height, bottom + reach), top, bottom)
        places = (tensor.data_ptr() for tensor in (images[image], taps, sums[0, image], room))
        respond(*places, plane, shape, rows)

    for _ in in_threads(compute, _pieces(len(images), height)):
        continue


def _gradients(images: Tensor, kernel: Tensor, dilations: Sequence[int], above: Tensor) -> tuple[Tensor, Tensor]:
    """Backward of `add_responses`: the gradients of the images and of the kernel, from the gradient of the sums."""
    taps, grad_images = _taps_of(kernel), torch.empty_like(images)
    turned, shape = taps.transpose(1, 2).contiguous(), (*images.shape[1:], len(kernel))
    collect, plane = _collect(kernel.shape[-1], tuple(dilations)), 4 * above.stride(0)

    def compute(piece: tuple[int, int, int]) -> Tensor:
        image, top, bottom = piece
        grad_taps, room = torch.zeros_like(taps), taps.new_empty(images.shape[2] * len(kernel))
        tensors = (above[0, image], images[image], turned, grad_images[image], grad_taps, room)
        collect(*(tensor.data_ptr() for tensor in tensors), plane, shape, (top, bottom))
        return grad_taps

    grad_taps = torch.zeros_like(taps)
    for part in in_threads(compute, _pieces(*images.shape[:2])):
        grad_taps += part
    return grad_images, grad_taps.unflatten(0, kernel.shape[2:]).permute(3, 2, 0, 1)


@lru_cache
def _respond(side: int, dilations: tuple[int, ...], dtype: torch.dtype) -> Callable:
    """Compiles the loops of `add_responses` for some rows of one image.

    Arguments of a call: addresses of the image, of the taps, of the image's first sums, and of a buffer for the
    products of an image row with a row of taps; byte offset to the sums of the next dilation; height, width, channels,
    filters; first and last (exclusive) row to multiply; first and last (exclusive) row whose sums may change.
    """
    half, branches, distances = side // 2, len(dilations), np.array(dilations)
    size, pair, multiply = dtype.itemsize, 4 // dtype.itemsize, product(dtype)
    add_all, add_one = (linear(((1.0,) * taps,), torch.float32, torch.float32, adds=True) for taps in (side, 1))
    none = np.float32(0)

    @compiled
    def add_row(products, target, distance, width, filters):
        """Adds an image row's products with one row of taps, (taps, W, filters), to a row of sums."""
        reach, value, plane = half * distance, filters * 4, width * filters * 4
        within = width - 2 * reach
        if within > 0:
            add_all(products, plane + distance * value, target + reach * value, 0, within * filters, 0, none)
        for tap in range(side):
            away = distance * (tap - half)
            for first, last in ((0, min(reach, width)), (max(reach, width - reach), width)):
                first, last = max(first, -away), min(last, width - away)
                if first < last:
                    place = products + tap * plane + (first + away) * value
                    add_one(place, 0, target + first * value, 0, (last - first) * filters, 0, none)

    @compiled
    def respond(image, taps, sums, found, plane, shape, rows):
        _, width, channels, filters = shape
        first, last, top, bottom = rows
        line = width * filters * 4
        for row in range(first, last):
            pixels = image + row * width * channels * size
            for down in range(side):
                for across in range(side):
                    tap, place = taps + (down * side + across) * channels * filters * size, found + across * line
                    multiply(
                        pixels,
                        channels * size,
                        4,
                        tap,
                        filters * 4,
                        place,
                        filters * 4,
                        width,
                        channels // pair,
                        filters,
                    )
                for branch in range(branches):
                    y = row - distances[branch] * (down - half)
                    if top <= y < bottom:
                        add_row(found, sums + branch * plane + y * line, distances[branch], width, filters)

    return respond


@lru_cache
def _collect(side: int, dilations: tuple[int, ...]) -> Callable:
    """Compiles the loops of `_gradients` for some rows of one image.

    Arguments of a call: addresses of the gradients of the image's first sums, of the image, of the taps (taps, filters,
    C), of the gradients of the image and of the taps, and of a buffer for a row's sums; byte offset to the sums of the
    next dilation; height, width, channels, filters; first and last (exclusive) row.
    """
    half, branches, distances = side // 2, len(dilations), np.array(dilations)
    accumulate = product(torch.float32, adds=True)
    clear, none = linear(((0.0,),), torch.float32, torch.float32), np.float32(0)
    add = linear(((1.0,),), torch.float32, torch.float32, adds=True)

    @compiled
    def collect(sums, image, taps, grad_image, grad_taps, found, plane, shape, rows):
        height, width, channels, filters = shape
        value, tap_size = filters * 4, channels * filters * 4
        for row in range(rows[0], rows[1]):
            pixels, target = image + row * width * channels * 4, grad_image + row * width * channels * 4
            clear(target, 0, target, 0, width * channels, 0, none)
            for tap in range(side * side):
                clear(found, 0, found, 0, width * filters, 0, none)
                for branch in range(branches):
                    y = row - distances[branch] * (tap // side - half)
                    away = distances[branch] * (tap % side - half)
                    first, last = max(0, away), min(width, width + away)
                    if 0 <= y < height and first < last:
                        source = sums + branch * plane + (y * width + first - away) * value
                        add(source, 0, found + first * value, 0, (last - first) * filters, 0, none)
                turned = taps + tap * tap_size
                accumulate(found, value, 4, turned, channels * 4, target, channels * 4, width, filters, channels)
                gained = grad_taps + tap * tap_size
                accumulate(pixels, 4, channels * 4, found, value, gained, value, channels, width, filters)

    return collect


def _pieces(images: int, height: int) -> Iterator[tuple[int, int, int]]:
    """Yields pieces of work, at least one per thread: image, first and last (exclusive) row."""
    each = -(-torch.get_num_threads() // max(1, images))
    for image in range(images):
        for top, bottom in spans(height, -(-height // each)):
            yield image, top, bottom


def _taps_of(kernel: Tensor) -> Tensor:
    """The kernel's taps as matrices: (filters, C, size, size) -> (size * size, C, filters), bfloat16 in pairs."""
    taps = kernel.permute(2, 3, 1, 0).flatten(0, 1)
    return (in_pairs(taps) if kernel.dtype == torch.bfloat16 else taps).contiguous()
