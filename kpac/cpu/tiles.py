"""Compiled loops of Winograd convolutions over tiles; called by `winograd`.

A few tiles at a time go through all steps while they are in the cache: input windows are transformed to values at the
points, these are multiplied with the kernel's values, and the products are transformed to outputs. The transforms work
along columns, then along rows.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kpac.cpu.compiled import compiled
from kpac.cpu.filtering import Filtering
from kpac.cpu.instructions import Matrix
from kpac.cpu.vectors import linear, product

NONE = np.float32(0)  # an unused slope
CLEAR, COPY = ((0.0,),), ((1.0,),)  # matrices for `linear`


class View(NamedTuple):
    """Features of a batch of images in memory: address, strides in bytes, and sizes."""

    address: int
    image: int
    row: int
    column: int
    height: int
    width: int
    channels: int

    @classmethod
    def of(cls, features: Tensor) -> "View":
        """The view of features (N, H, W, C) whose channels are contiguous."""
        distances = [stride * features.element_size() for stride in features.stride()[:3]]
        return cls(features.data_ptr(), *distances, *features.shape[1:])


class Grid(NamedTuple):
    """How tiles cover the images.

    Args:
        down, across: number of tiles down and across an image. A dilated kernel sees the image as dilation ** 2
            interleaved images; the numbers are then for each of these.
        dilation: dilation of the kernel.
        top, left: row and column of the sources where the first window begins.
        shift: output row of the target's first row.
        first, last: first and last (exclusive) tile to compute, among those of all images.
    """

    down: int
    across: int
    dilation: int
    top: int
    left: int
    shift: int
    first: int
    last: int


class Room(NamedTuple):
    """Addresses of the buffers for one thread's loops.

    Args:
        columns: windows, transformed along the columns.
        column: one column of a window, with zeros outside of the border.
        tiles: the tiles' values at all points.
        products: products of these values with the kernel's.
        sums: a tile's products, transformed along the columns.
        outputs: one row of a tile's outputs, including those outside of the border.
        reads: maximum number of columns.
        most: maximum number of tiles.
    """

    columns: int
    column: int
    tiles: int
    products: int
    sums: int
    outputs: int
    reads: int
    most: int

    @classmethod
    def of(
        cls, filtering: Filtering, channels: int, filters: int, dtype: torch.dtype, across: int, most: int
    ) -> tuple["Room", Tensor]:
        """Allocates the buffers; also returns the tensor that owns their memory."""
        window, points, outputs = len(filtering.spread[0]), len(filtering.spread), len(filtering.gather)
        reads = filtering.step * (min(across, most) - 1) + window
        sizes = [
            points * reads * channels * 4,
            window * channels * 4,
            most * points**2 * channels * dtype.itemsize,
            most * points**2 * len(filtering.kernels) ** 2 * filters * 4,
            outputs * points * filters * 4,
            outputs * filters * 4,
        ]
        memory = torch.empty(sum(sizes), dtype=torch.uint8, device="cpu")
        ends = [memory.data_ptr() + sum(sizes[:index]) for index in range(len(sizes))]
        return cls._make([*ends, reads, most]), memory


@lru_cache
def forward(filtering: Filtering, dtype: torch.dtype) -> Callable:
    """Compiles the loops of a convolution and its activation.

    Arguments of a call: views of the sources, whose channels are concatenated; view of the target; grid; room; number
    of channels; addresses of the kernel's values and of the biases; slope of the leaky ReLU.
    """
    points, parts = len(filtering.spread), len(filtering.kernels)
    chosen, values = filtering.chosen, max(filtering.chosen) + 1
    spread, outputs_of, gather = _spread(filtering, dtype), _outputs_of(filtering), _gather(filtering, dtype)
    size, pair, multiply, plane = dtype.itemsize, 4 // dtype.itemsize, product(dtype), points * points

    @compiled
    def convolve(sources, target, grid, room, channels, kernel, bias, slope):
        filters, spacing = target.channels, grid.dilation * parts
        width = parts * parts * filters
        for first in range(grid.first, grid.last, room.most):
            last = min(first + room.most, grid.last)
            spread(sources, grid, room, channels, first, last)
            for point in range(plane):
                value = chosen[point // points] * values + chosen[point % points]
                a, a_row = room.tiles + point * channels * size, plane * channels * size
                b, b_row = kernel + value * channels * width * size, width * 4
                c, c_row = room.products + point * width * 4, plane * width * 4
                multiply(a, a_row, 4, b, b_row, c, c_row, last - first, channels // pair, width)
            for tile in range(first, last):
                image, top, left = outputs_of(tile, grid)
                for part in range(parts * parts):
                    place = room.products + ((tile - first) * plane * width + part * filters) * 4
                    y, x = top - part // parts, left - part % parts
                    gather(place, width * 4, target, room, image, y, x, spacing, bias, slope)

    return convolve


@lru_cache
def weight_gradient(filtering: Filtering) -> Callable:
    """Compiles the loops that add up the gradient of the kernel's values at all points, in float32.

    Arguments of a call: views of the sources; view of the output's gradient; grid; room; number of channels; address of
    the gradient to add to, (points ** 2, C, parts ** 2 * F).
    """
    points, parts = len(filtering.spread), len(filtering.kernels)
    spread, outputs_of, scatter = _spread(filtering, torch.float32), _outputs_of(filtering), _scatter(filtering)
    accumulate, plane = product(torch.float32, adds=True), points * points

    @compiled
    def weigh(sources, above, grid, room, channels, gains):
        filters, spacing = above.channels, grid.dilation * parts
        width = parts * parts * filters
        for first in range(grid.first, grid.last, room.most):
            last = min(first + room.most, grid.last)
            spread(sources, grid, room, channels, first, last)
            for tile in range(first, last):
                image, top, left = outputs_of(tile, grid)
                for part in range(parts * parts):
                    place = room.products + ((tile - first) * plane * width + part * filters) * 4
                    scatter(place, width * 4, above, room, image, top - part // parts, left - part % parts, spacing)
            for point in range(plane):
                a, a_column = room.tiles + point * channels * 4, plane * channels * 4
                b, b_row = room.products + point * width * 4, plane * width * 4
                c = gains + point * channels * width * 4
                accumulate(a, 4, a_column, b, b_row, c, width * 4, channels, last - first, width)

    return weigh


@lru_cache
def _spread(filtering: Filtering, dtype: torch.dtype) -> Callable:
    """Compiles the transform of the windows of some tiles to their values at all points."""
    window, points, step, size = len(filtering.spread[0]), len(filtering.spread), filtering.step, dtype.itemsize
    along_columns, along_rows = _linear(filtering.spread, dtype, torch.float32), _linear(filtering.spread, to=dtype)
    clear, copy = _linear(CLEAR, dtype, dtype), _linear(COPY, dtype, dtype)
    clear_points = _linear(CLEAR)

    @compiled
    def transform_column(place, row_step, valid, room, target, plane, channels):
        """Transforms a column of a window, of which only the rows in `valid` are inside the border."""
        for row in range(window):
            found = room.column + row * channels * size
            if valid[0] <= row < valid[1]:
                copy(place + row * row_step, 0, found, 0, channels, 0, NONE)
            else:
                clear(found, 0, found, 0, channels, 0, NONE)
        along_columns(room.column, channels * size, target, plane, channels, 0, NONE)

    @compiled
    def transform_columns(view, image, top, left, dilation, reads, room):
        """Transforms neighbouring columns; without dilation, they are contiguous in memory and transformed at once."""
        channels, plane = view.channels, room.reads * view.channels * 4
        above = max(0, min(window, -(top // dilation)))
        valid = (above, max(above, min(window, (view.height - top + dilation - 1) // dilation)))
        source = view.address + image * view.image + top * view.row
        first, last = min(reads, max(0, -left)), max(0, min(reads, view.width - left))
        together = valid == (0, window) and dilation == 1 and view.column == channels * size and first < last
        if together:
            place, length = source + (left + first) * view.column, (last - first) * channels
            along_columns(place, view.row, room.columns + first * channels * 4, plane, length, 0, NONE)
        for column in range(reads):
            if together and first <= column < last:
                continue
            x, target = left + dilation * column, room.columns + column * channels * 4
            place = source + x * view.column
            if not 0 <= x < view.width:
                for point in range(points):
                    clear_points(target, 0, target + point * plane, 0, channels, 0, NONE)
            elif valid == (0, window):
                along_columns(place, dilation * view.row, target, plane, channels, 0, NONE)
            else:
                transform_column(place, dilation * view.row, valid, room, target, plane, channels)

    @compiled
    def spread(sources, grid, room, channels, first, last):
        kinds = grid.dilation * grid.dilation  # number of interleaved images
        tile = first
        while tile < last:
            line, column = tile // grid.across, tile % grid.across
            count = min(grid.across - column, last - tile)
            image, kind, row = line // (grid.down * kinds), line // grid.down % kinds, line % grid.down
            top = grid.top + kind // grid.dilation + grid.dilation * step * row
            left = grid.left + kind % grid.dilation + grid.dilation * step * column
            begin = room.tiles + (tile - first) * points * points * channels * size
            for view in sources:
                transform_columns(view, image, top, left, grid.dilation, step * (count - 1) + window, room)
                value = view.channels * 4
                for point in range(points):
                    for place in range(count):
                        source = room.columns + (point * room.reads + step * place) * value
                        target = begin + (place * points + point) * points * channels * size
                        along_rows(source, value, target, channels * size, view.channels, 0, NONE)
                begin += view.channels * size
            tile += count

    return spread


@lru_cache
def _outputs_of(filtering: Filtering) -> Callable:
    """Compiles the computation of the position of a tile's first output."""
    size = len(filtering.kernels) * len(filtering.gather)

    @compiled
    def outputs_of(tile, grid):
        """Returns image, row and column of a tile's first output."""
        line, column, kinds = tile // grid.across, tile % grid.across, grid.dilation * grid.dilation
        kind, row = line // grid.down % kinds, line % grid.down
        top = kind // grid.dilation + grid.dilation * size * row - grid.shift
        return line // (grid.down * kinds), top, kind % grid.dilation + grid.dilation * size * column

    return outputs_of


@lru_cache
def _gather(filtering: Filtering, dtype: torch.dtype) -> Callable:
    """Compiles the transform of a tile's products to its outputs; leaves out those outside of the border."""
    points, outputs, size = len(filtering.spread), len(filtering.gather), dtype.itemsize
    along_columns, along_rows = _linear(filtering.gather), linear(filtering.gather, torch.float32, dtype, ends=True)
    copy = _linear(COPY, dtype, dtype)

    @compiled
    def gather(products, plane, view, room, image, top, left, spacing, bias, slope):
        filters, value = view.channels, view.channels * 4
        for point in range(points):
            source, target = products + point * plane, room.sums + point * value
            along_columns(source, points * plane, target, points * value, filters, 0, NONE)
        inside = left >= 0 and left + (outputs - 1) * spacing < view.width
        for output in range(outputs):
            y = top + output * spacing
            if not 0 <= y < view.height:
                continue
            source = room.sums + output * points * value
            target = view.address + image * view.image + y * view.row + left * view.column
            if inside:
                along_rows(source, value, target, spacing * view.column, filters, bias, slope)
                continue
            along_rows(source, value, room.outputs, filters * size, filters, bias, slope)
            for column in range(outputs):
                if 0 <= left + column * spacing < view.width:
                    place = target + column * spacing * view.column
                    copy(room.outputs + column * filters * size, 0, place, 0, filters, 0, NONE)

    return gather


@lru_cache
def _scatter(filtering: Filtering) -> Callable:
    """Compiles the backward of `_gather`: from the gradient of a tile's outputs to that of its products.

    The gradient is zero outside of the border.
    """
    points, outputs = len(filtering.spread), len(filtering.gather)
    transform, clear, copy = _linear(tuple(zip(*filtering.gather, strict=True))), _linear(CLEAR), _linear(COPY)

    @compiled
    def scatter(products, plane, view, room, image, top, left, spacing):
        filters, value = view.channels, view.channels * 4
        inside = left >= 0 and left + (outputs - 1) * spacing < view.width
        for output in range(outputs):
            y, target = top + output * spacing, room.sums + output * points * value
            if not 0 <= y < view.height:
                clear(target, 0, target, 0, points * filters, 0, NONE)
                continue
            source, step = view.address + image * view.image + y * view.row + left * view.column, spacing * view.column
            if not inside:
                clear(room.outputs, 0, room.outputs, 0, outputs * filters, 0, NONE)
                for column in range(outputs):
                    if 0 <= left + column * spacing < view.width:
                        copy(source + column * step, 0, room.outputs + column * value, 0, filters, 0, NONE)
                source, step = room.outputs, value
            transform(source, step, target, value, filters, 0, NONE)
        for point in range(points):
            source, target = room.sums + point * value, products + point * plane
            transform(source, points * value, target, points * plane, filters, 0, NONE)

    return scatter


def _linear(matrix: Matrix, source: torch.dtype = torch.float32, to: torch.dtype = torch.float32) -> Callable:
    return linear(matrix, source, to)
