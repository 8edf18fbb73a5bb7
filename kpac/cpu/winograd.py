"""Winograd convolutions, with a fraction of the multiplications; for the layers of `kpac.models.layers`.

They use minimal filtering (see `filtering`) along columns and rows:

- F(4, 3) for 3x3 convolutions: 36 products instead of 144, for 4x4 outputs and each pair of channels.
- F(2, 5) for 5x5 convolutions: 36 instead of 100. A dilation of 2 is computed as four interleaved images.
- F(4, 2) twice for 4x4 transposed convolutions of stride 2, where even and odd outputs use two taps each: 100 instead
  of 256.
- F(4, 2) and a separate middle tap for 3x3 convolutions of stride 2: 81 instead of 144.

The gradients are computed in the same way.
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kpac.cpu import filtering as minimal
from kpac.cpu import tiles
from kpac.cpu.filtering import Filtering
from kpac.cpu.instructions import fill_registers, registers
from kpac.cpu.parallel import channels_last, in_threads, spans
from kpac.cpu.tiles import Grid, Room, View
from kpac.cpu.vectors import in_pairs

BLOCK = 4  # number of rows that are computed together
CHANNELS = 32  # with fewer, the transforms cost as much as is saved
TILE_BYTES = 3 << 18  # memory of one thread's current tiles and their products
GRADIENT_BYTES = 4 << 20  # the same for gradients of weights: larger, since each group of tiles adds to all of them


def suits(layer: Any) -> bool:
    """Whether `of_layer` and `convolve` can compute the layer, in less time."""
    channels = layer.in_channels, layer.out_channels
    filled = layer.weight.is_cpu and channels[0] >= CHANNELS and fill_registers(*channels)
    return filled and minimal.of_layer(layer) is not None


def of_layer(layer: Any, slope: float, dtype: torch.dtype) -> "Convolution":
    """The convolution of a suitable layer (see `suits`), with the slope of its leaky ReLU."""
    weight = _weight_of(layer)
    tiling = _tiling(layer, weight, dtype)
    return Convolution(tiling, weight, layer.bias, slope)


def convolve(layer: Any, slope: float, x: Tensor) -> Tensor:
    """Computes a suitable layer (see `suits`) and its activation, with gradients.

    Shape: (N, C, H, W) float32 -> (N, F, H', W'), in channels-last order.
    """
    weight = _weight_of(layer)
    tiling = _tiling(layer, weight, x.dtype)
    return _Convolve.apply(x, weight, layer.bias, tiling, slope).permute(0, 3, 1, 2)


def _tiling(layer: Any, weight: Tensor, dtype: torch.dtype) -> "Tiling":
    filtering = minimal.of_layer(layer)
    if filtering is None:
        raise ValueError(f"no minimal filtering for {layer}")
    filters, channels = weight.shape[:2]
    return Tiling(filtering, filters, channels, dtype, layer.dilation[0])


def _weight_of(layer: Any) -> Tensor:
    return layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, tiling: "Tiling", slope: float) -> Tensor:
        images = channels_last(x)
        convolution = Convolution(tiling, weight, bias, slope, x.dtype)
        outputs, step = tiling.parts * len(tiling.filtering.gather), tiling.filtering.step
        output = images.new_empty(len(x), *(outputs * side // step for side in x.shape[2:]), len(bias))
        for _ in in_threads(lambda share: convolution([images], output, span=share), tiling.shares(output)):
            continue
        ctx.save_for_backward(images, weight, output)
        ctx.tiling, ctx.slope = tiling, slope
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, output = ctx.saved_tensors
        grad_images, grad_weight = torch.empty_like(images), weight.new_zeros(weight.shape)
        wanted, tiling = ctx.needs_input_grad, ctx.tiling
        above = torch.ops.aten.leaky_relu_backward(gradient.contiguous(), output, float(ctx.slope), True)
        with torch.autocast("cpu", enabled=False):
            back = _reverse(tiling, weight) if wanted[0] else None

        def compute(shares: tuple[tuple[int, int] | None, ...]) -> Tensor | None:
            of_above, of_target = shares
            if back is not None and of_target is not None:
                back([above], grad_images, span=of_target)
            return tiling.weight_gradient(images, above, of_above) if of_above is not None else None

        shares = zip_longest(tiling.shares(above) if wanted[1] else (), back.tiling.shares(grad_images) if back else ())
        for part in in_threads(compute, shares):
            if part is not None:
                grad_weight += part
        return (
            grad_images.permute(0, 3, 1, 2) if wanted[0] else None,
            grad_weight if wanted[1] else None,
            above.sum(dim=(0, 1, 2)) if wanted[2] else None,
            None,
            None,
        )


def _reverse(tiling: "Tiling", weight: Tensor) -> "Convolution":
    """The convolution that computes the gradient of the input from that of the output."""
    filtering, turned = minimal.reverse(tiling.filtering, weight)
    filters, channels = turned.shape[:2]
    tiling = Tiling(filtering, filters, channels, tiling.dtype, tiling.dilation)
    return Convolution(tiling, turned, weight.new_zeros(len(turned)), 1, tiling.dtype)


class Tiling:
    """Division of a convolution into tiles; also computes the gradient of its weight.

    Args:
        filtering: transforms of the convolution.
        filters, channels: number of output and input channels; multiples of the registers' lanes.
        dtype: type of the features.
        dilation: dilation of the kernel.
    """

    def __init__(self, filtering: Filtering, filters: int, channels: int, dtype: torch.dtype, dilation: int):
        self.filtering, self.filters, self.channels = filtering, filters, channels
        self.dtype, self.dilation = dtype, dilation
        self.parts, self.points = len(filtering.kernels), len(filtering.spread)

    def shares(self, target: Tensor) -> Iterator[tuple[int, int]]:
        """Divides the tiles of whole images among threads: first and last (exclusive) tile of each share.

        Args:
            target: (N, H', W', F).
        """
        total = self.grid(target).last
        return spans(total, -(-total // torch.get_num_threads()), registers().rows) if total else iter(())

    def grid(self, target: Tensor, above: int = 0, shift: int = 0, span: tuple[int, int] | None = None) -> Grid:
        """The grid of tiles for a target; for the arguments see `Convolution.__call__`."""
        size = self.dilation * self.parts * len(self.filtering.gather)
        lengths = target.shape[1] + shift, target.shape[2]
        down, across = (-(-(length + self.parts - 1) // size) for length in lengths)
        first, last = span or (0, len(target) * self.dilation**2 * down * across)
        before = self.filtering.before * self.dilation
        return Grid(down, across, self.dilation, above - before, -before, shift, first, last)

    def room(self, grid: Grid, size: int) -> tuple[Room, Tensor]:
        """Buffers for tiles of about `size` bytes, and the tensor that owns the memory."""
        rows = registers().rows
        tile = self.points**2 * (self.channels * self.dtype.itemsize + self.parts**2 * self.filters * 4)
        most = max(1, size // (tile * rows)) * rows
        return Room.of(self.filtering, self.channels, self.filters, self.dtype, grid.across, most)

    def weight_gradient(self, images: Tensor, above: Tensor, span: tuple[int, int]) -> Tensor:
        """The contribution of some tiles to the gradient of the weight, (F, C, taps, taps).

        Args:
            images: input, (N, H, W, C) float32, contiguous.
            above: gradient of the output before the activation, (N, H', W', F), contiguous.
            span: first and last (exclusive) tile.
        """
        gains = images.new_zeros(self.points**2, self.channels, self.parts**2 * self.filters)
        grid = self.grid(above, span=span)
        room, _memory = self.room(grid, GRADIENT_BYTES)
        views = (View.of(images),), View.of(above)
        tiles.weight_gradient(self.filtering)(*views, grid, room, self.channels, gains.data_ptr())
        if self.parts > 1:
            gains = gains.unflatten(2, (self.parts**2, -1)).transpose(1, 2)
        of_values = minimal.values_of_taps(self.filtering, each_point=True).to(gains.dtype)
        taps = of_values.T @ gains.reshape(len(of_values), -1)
        side = len(self.filtering.kernels[0][0])
        return taps.view(side, side, self.channels, self.filters).permute(3, 2, 0, 1)


class Convolution:
    """A convolution and its activation; several threads can call it at once.

    Args:
        tiling: division into tiles.
        weight: (F, C, taps, taps).
        bias: (F).
        slope: slope of the leaky ReLU; 1 for no activation.
        precision: dtype for transforming the kernel; autocast does not change float64.
    """

    def __init__(
        self, tiling: Tiling, weight: Tensor, bias: Tensor, slope: float, precision: torch.dtype = torch.float64
    ):
        self.tiling = tiling
        taps = weight.detach().permute(2, 3, 1, 0).flatten(0, 1).flatten(1).to(precision)
        kernel = minimal.values_of_taps(tiling.filtering).to(precision) @ taps
        kernel = kernel.unflatten(1, (tiling.channels, tiling.filters))
        if tiling.parts > 1:
            kernel = kernel.unflatten(0, (-1, tiling.parts**2)).transpose(1, 2).flatten(2)
        if tiling.dtype == torch.bfloat16:
            kernel = in_pairs(kernel)
        self.kernel = kernel.to(tiling.dtype).contiguous()  # (values ** 2, C, parts ** 2 * F)
        self.bias, self.slope = bias.detach().float().contiguous(), np.float32(slope)
        self.loops = tiles.forward(tiling.filtering, tiling.dtype)

    def __call__(
        self,
        sources: Sequence[Tensor],
        target: Tensor,
        above: int = 0,
        shift: int = 0,
        span: tuple[int, int] | None = None,
    ) -> None:
        """Computes rows of the output into `target`.

        Args:
            sources: inputs (N, H, W, C) with contiguous channels; concatenated, they have the layer's channels. They
                count as zero outside of their borders.
            target: (N, rows, columns, F) with contiguous channels; all rows and columns are written.
            above: row of the sources at the position of the output's first row.
            shift: output row of the target's first row: 0, or for a transposed convolution also -1.
            span: first and last (exclusive) tile to compute, among those of all images.
        """
        channels = self.tiling.channels
        if sum(source.shape[3] for source in sources) != channels or target.shape[3] != self.tiling.filters:
            raise ValueError(f"expected {channels} channels to become {self.tiling.filters}")
        grid = self.tiling.grid(target, above, shift, span)
        room, _memory = self.tiling.room(grid, TILE_BYTES)
        places = self.kernel.data_ptr(), self.bias.data_ptr()
        self.loops(tuple(map(View.of, sources)), View.of(target), grid, room, channels, *places, self.slope)
