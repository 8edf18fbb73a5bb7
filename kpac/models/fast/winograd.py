"""Convolutions with a quarter of the multiplications: `layers.Conv` says what is computed.

F(4x4, 3x3) of Lavin and Gray (arXiv 1509.09308) computes 4x4 neighbouring outputs from 6x6 inputs. Both are transformed
along columns and rows, and what were 144 multiplications for each pair of channels are 36, in 36 matrix products.
F(2x2, 5x5) has the same inputs, and 36 instead of 100; a dilation of 2 leaves four images to convolve, interleaved.

The transforms are compiled by Numba when they are first needed, which takes seconds once and is remembered: PyTorch's
own operations would pass over memory several times for each, and take the time that is saved.
"""

from collections.abc import Callable
from functools import lru_cache
from threading import local

import numpy as np
import torch
from torch import Tensor, nn

from kpac.models.fast.compiled import access, array, compiled

CHANNELS = 32  # with fewer, the transforms take the time that is saved
POINTS = 6  # a polynomial's values at 0, 1, -1, 2, -2 and infinity
TILE_BYTES = 3 << 20  # of the tiles at work in a thread: calls long enough that threads seldom wait for each other
KERNELS = {  # in the paper's terms G, for outputs of 4 and of 2
    4: ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1)),
    2: ((1 / 4, 0, 0, 0, 0), (-1 / 6, -1 / 6, -1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6, 1 / 3, 2 / 3), (1 / 24, -1 / 12, 1 / 6, -1 / 3, 2 / 3), (0, 0, 0, 0, 1)),
}  # fmt: skip
BLOCK = 4  # outputs a side that are computed together: a tile of 4x4, or with a dilation of 2 four of 2x2


def suits(layer: nn.Conv2d) -> bool:
    """Whether `Convolution` may stand in for the layer, and takes less time."""
    size, dilation = layer.kernel_size[0], layer.dilation[0]
    known = (size, dilation) in ((3, 1), (5, 2)) and layer.kernel_size == (size, size) and layer.stride == (1, 1)
    return known and layer.in_channels >= CHANNELS


class Convolution:
    """A convolution and its activation, for bands of rows in any order, in several threads at a time.

    Args:
        weight: (F, C, size, size); what `suits` a layer suits here.
        bias: (F).
        dilation: 1 or 2.
        slope: of the leaky ReLU; 1 is none.
        dtype: of the rows.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dilation: int, slope: float, dtype: torch.dtype):
        self.reach, self.dilation = dilation * (weight.shape[-1] // 2), dilation
        points = torch.tensor(KERNELS[BLOCK // dilation], dtype=torch.float64)  # which autocast leaves as it is
        kernel = torch.einsum("ik,fckl,jl->ijcf", points, weight.double(), points)
        self.kernel = kernel.flatten(0, 1).to(dtype).contiguous()  # (36, in_channels, out_channels)
        self.bias, self.slope = array(bias), np.float32(slope)
        _, channels, filters = self.kernel.shape
        tile = POINTS**2 * dilation**2 * channels * self.kernel.element_size()
        self.blocks = max(8, TILE_BYTES // tile)  # at a time
        self.transform = _input_transform(channels, dilation, self.blocks, dtype)
        self.finish = _output_transform(filters, dilation, self.blocks, dtype)
        self.room = local()

    def __call__(self, rows: Tensor, margin: int) -> Tensor:
        """Some rows of an image.

        Args:
            rows: (rows + 2 * margin, W, C); zeros are beyond them.
            margin: rows above and below of which no output is wanted.

        Returns:
            (rows, W, F).
        """
        height, width = len(rows) - 2 * margin, rows.shape[1]
        output = rows.new_empty(height, width, self.kernel.shape[2])
        source, target = (array(values.flatten(1)) for values in (rows.contiguous(), output))
        half, zeros, tiles, products = self._room()
        inputs, outputs = array(tiles.view(-1)), array(products.view(-1))
        across = min(self.blocks, -(-width // BLOCK))
        lines = self.blocks // across  # of blocks, in one product
        for top in range(0, height, BLOCK * lines):
            tops = range(top, min(top + BLOCK * lines, height), BLOCK)
            for left in range(0, width, BLOCK * across):
                blocks = min(across, -(-(width - left) // BLOCK))
                count = blocks * self.dilation**2
                for line, y in enumerate(tops):
                    above = y + margin - self.reach
                    self.transform(source, above, left - self.reach, blocks, half, zeros, inputs, line * count)
                chosen = slice(0, len(tops) * count)
                torch.bmm(tiles[:, chosen], self.kernel, out=products[:, chosen])
                for line, y in enumerate(tops):
                    self.finish(outputs, line * count, blocks, self.bias, self.slope, y, left, target)
        return output

    def _room(self) -> tuple[np.ndarray, np.ndarray, Tensor, Tensor]:
        """This thread's memory: for columns of tiles that are transformed, zeros, for tiles, and for their products."""
        if not hasattr(self.room, "tensors"):
            _, channels, filters = self.kernel.shape
            tiles = self.blocks * self.dilation**2
            line = _columns(self.blocks, self.dilation) * channels
            arrays = np.empty(POINTS * line, np.float32), array(self.kernel.new_zeros(line))
            self.room.tensors = *arrays, *(self.kernel.new_empty(POINTS**2, tiles, n) for n in (channels, filters))
        return self.room.tensors


def _columns(blocks: int, dilation: int) -> int:
    """How many columns neighbouring blocks read."""
    return BLOCK * (blocks - 1) + dilation * POINTS


@lru_cache
def _input_transform(channels: int, dilation: int, most: int, dtype: torch.dtype) -> Callable:
    """Blocks of a row -> the values of their tiles at all points.

    A call takes: rows (height, W * channels); where the blocks begin, above and left of the kernel's reach; how many
    there are; room; zeros; the tiles (36, most * dilation ** 2, channels), flat; the first tile. Zeros are around
    the rows.
    """
    line = _columns(most, dilation) * channels
    plane = most * dilation**2 * channels
    block, points, step = BLOCK, POINTS, dilation * channels
    two, four, five = map(np.float32, (2, 4, 5))
    load, store = access(dtype)

    @compiled
    def values(a, b, c, d, e, f):
        even, odd = e - four * c, d - four * b
        difference, twice = e - c, two * (d - b)
        first, last = four * a - five * c + e, four * b - five * d + f
        return first, even + odd, even - odd, difference + twice, difference - twice, last

    @compiled
    def part(rows, y, start, end, zeros):
        return rows[y, start:end] if 0 <= y < rows.shape[0] else zeros[: end - start]

    @compiled
    def transform_columns(rows, top, left, count, half, zeros):
        first, last = max(0, -left * channels), min(count, rows.shape[1] - left * channels)
        for point in range(points):
            half[point * line : point * line + first] = 0
            half[point * line + last : point * line + count] = 0
        start, end = left * channels + first, left * channels + last
        a = part(rows, top, start, end, zeros)
        b = part(rows, top + dilation, start, end, zeros)
        c = part(rows, top + 2 * dilation, start, end, zeros)
        d = part(rows, top + 3 * dilation, start, end, zeros)
        e = part(rows, top + 4 * dilation, start, end, zeros)
        f = part(rows, top + 5 * dilation, start, end, zeros)
        target = half[first:]
        for k in range(last - first):
            found = values(load(a[k]), load(b[k]), load(c[k]), load(d[k]), load(e[k]), load(f[k]))
            for point in range(points):
                target[k + point * line] = found[point]

    @compiled
    def transform(rows, top, left, blocks, half, zeros, tiles, first):
        count = (block * (blocks - 1) + points * dilation) * channels
        for down in range(dilation):
            transform_columns(rows, top + down, left, count, half, zeros)
            for point in range(points):
                for right in range(dilation):
                    for place in range(blocks):
                        source = half[point * line + (block * place + right) * channels :]
                        tile = first + (down * dilation + right) * blocks + place
                        target = tiles[point * points * plane + tile * channels :]
                        for k in range(channels):
                            found = values(
                                source[k],
                                source[k + step],
                                source[k + 2 * step],
                                source[k + 3 * step],
                                source[k + 4 * step],
                                source[k + 5 * step],
                            )
                            for other in range(points):
                                target[k + other * plane] = store(found[other])

    return transform


@lru_cache
def _output_transform(filters: int, dilation: int, most: int, dtype: torch.dtype) -> Callable:
    """The products of blocks with the kernel -> outputs of a row, with bias and activation.

    A call takes: the products (36, most * dilation ** 2, filters), flat; the first tile; how many blocks there are;
    bias; slope; where the blocks begin; the output (height, W * filters), of which rows and columns beyond the end are
    left out.
    """
    plane, line = most * dilation**2 * filters, POINTS * filters
    block, points, side = BLOCK, POINTS, BLOCK // dilation
    two, four, eight = map(np.float32, (2, 4, 8))
    load, store = access(dtype)

    @compiled
    def sums(a, b, c, d, e, f):
        even, odd, even_far, odd_far = b + c, b - c, d + e, d - e
        if side == 2:
            return a + even + even_far, odd + two * odd_far + f, a, a
        return a + even + even_far, odd + two * odd_far, even + four * even_far, odd + eight * odd_far + f

    @compiled
    def finish_line(source, bias, slope, target):
        for k in range(filters):
            found = sums(
                source[k],
                source[k + filters],
                source[k + 2 * filters],
                source[k + 3 * filters],
                source[k + 4 * filters],
                source[k + 5 * filters],
            )
            for column in range(side):
                value = found[column] + bias[k]
                target[column * dilation * filters + k] = store(max(value, slope * value))

    @compiled
    def finish(products, first, blocks, bias, slope, top, left, output):
        height, width = output.shape[0], output.shape[1] // filters
        half = np.empty(side * line, np.float32)
        spare = np.empty(block * filters, output.dtype)
        for tile in range(dilation * dilation * blocks):
            down, right, place = tile // (dilation * blocks), tile // blocks % dilation, tile % blocks
            source = products[(first + tile) * filters :]
            for point in range(points):
                for k in range(filters):
                    found = sums(
                        load(source[k + point * plane]),
                        load(source[k + (point + points) * plane]),
                        load(source[k + (point + 2 * points) * plane]),
                        load(source[k + (point + 3 * points) * plane]),
                        load(source[k + (point + 4 * points) * plane]),
                        load(source[k + (point + 5 * points) * plane]),
                    )
                    for row in range(side):
                        half[row * line + point * filters + k] = found[row]
            x = left + block * place + right
            inside = min(side, (width - x + dilation - 1) // dilation)
            for row in range(side):
                y = top + down + row * dilation
                if y >= height:
                    break
                if inside == side:
                    finish_line(half[row * line :], bias, slope, output[y, x * filters :])
                    continue
                finish_line(half[row * line :], bias, slope, spare)
                for column in range(inside):
                    start = column * dilation * filters
                    for k in range(filters):
                        output[y, x * filters + start + k] = spare[start + k]

    return finish
