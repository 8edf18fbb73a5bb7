"""Features that are computed in bands of a few rows, and the layers on them.

A band stays in the processor's cache and reuses memory. New memory is slow: the operating system clears every newly
mapped page, which takes longer than most layers do. Features are stored as (rows, columns, channels), so that
convolutions need no copies.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kpac.cpu import winograd
from kpac.cpu.instructions import fill_registers
from kpac.cpu.parallel import in_threads, spans
from kpac.models.layers import LEAKY_SLOPE, Conv, DownConv, UpConv, activation

BAND_BYTES = 4 << 20  # size of a band of the widest features
CHAIN_BYTES = 10 << 20  # the same for a chain of layers, where each band recomputes some rows of its neighbors
BLOCK = winograd.BLOCK  # number of rows that are computed together

Result = TypeVar("Result")


class Rows:
    """Features whose rows are computed on demand; outside of the border they are zero.

    Args:
        shape: (rows, columns, channels).
        dtype: float32 or bfloat16.
        device: CPU, or meta to allocate what `keep` stores, without computing it.
        compute: first and last (exclusive) row, inside the border -> these rows. Several threads may call it at once.
        fill: the same, but writes the rows into a tensor. Only one of the two is needed.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        compute: Callable[[int, int], Tensor] | None = None,
        fill: Callable[[int, int, Tensor], object] | None = None,
    ):
        self.shape, self.dtype, self.device = tuple(shape), dtype, device
        self._compute, self._fill = compute, fill

    @property
    def parts(self) -> "Sequence[Rows]":
        """The features whose channels are concatenated here."""
        return (self,)

    def compute(self, top: int, bottom: int) -> Tensor:
        if self._compute is not None:
            return self._compute(top, bottom)
        rows = torch.empty(bottom - top, *self.shape[1:], dtype=self.dtype, device=self.device)
        self.fill(top, bottom, rows)
        return rows

    def fill(self, top: int, bottom: int, rows: Tensor) -> None:
        if self._fill is not None:
            self._fill(top, bottom, rows)
        elif self._compute is not None:
            rows.copy_(self._compute(top, bottom))

    def within(self, top: int, bottom: int) -> Tensor:
        """The rows from `top` to `bottom` (exclusive) that are inside the border."""
        return self.compute(*self.inside(top, bottom))

    def __call__(self, top: int, bottom: int) -> Tensor:
        """The rows from `top` to `bottom` (exclusive), with zeros outside of the border."""
        first, last = self.inside(top, bottom)
        return F.pad(self.compute(first, last), (0, 0, 0, 0, first - top, bottom - last))

    def inside(self, top: int, bottom: int) -> tuple[int, int]:
        return max(top, 0), min(bottom, self.shape[0])

    def keep(self, *reads: "Rows", size: int | None = None) -> Tensor:
        """Computes all rows, band by band, and stores them in one tensor.

        Args:
            reads: the inputs and intermediate features of a band; they count towards its size.
            size: size in bytes of a band of the widest of these features; by default `BAND_BYTES`.
        """
        kept = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        rows = min(rows_of(size or BAND_BYTES, features) for features in (self, *reads))
        for _ in in_bands(lambda top, bottom: self.fill(top, bottom, kept[top:bottom]), kept, rows, BLOCK):
            continue
        return kept

    def bytes(self) -> int:
        """Size of one row in bytes."""
        return self.shape[1] * self.shape[2] * self.dtype.itemsize


class Joined(Rows):
    """Features of the same size, concatenated along the channels."""

    def __init__(self, parts: Sequence[Rows]):
        first, self._parts = parts[0], parts
        check_same_size(part.shape for part in parts)
        shape = (*first.shape[:2], sum(part.shape[2] for part in parts))

        def compute(top: int, bottom: int) -> Tensor:
            return torch.cat([part.compute(top, bottom) for part in parts], dim=2)

        super().__init__(shape, first.dtype, first.device, compute)

    @property
    def parts(self) -> Sequence[Rows]:
        return self._parts


def check_same_size(shapes: Iterable[Sequence[int]]) -> None:
    """Refuses features of different sizes; the compiled loops would not notice."""
    sizes = sorted({tuple(shape[:2]) for shape in shapes})
    if len(sizes) > 1:
        raise ValueError(
            f"expected features of one size, found {sizes}; pad the image to a multiple of the network's stride"
        )


def stored(x: Tensor) -> Rows:
    return Rows(x.shape, x.dtype, x.device, lambda top, bottom: x[top:bottom])


def rows_of(size: int, rows: Rows) -> int:
    """Number of rows, in whole blocks, that take about `size` bytes."""
    return max(1, size // (BLOCK * rows.bytes())) * BLOCK


def in_bands(
    function: Callable[[int, int], Result], target: Tensor, rows: int, multiple: int, early: int = 0
) -> Iterator[Result]:
    """Calls `function` for bands of about `rows` rows of `target`, in threads; yields the results in order.

    Its arguments are the first and the last (exclusive) row of a band. Bands end at multiples of `multiple`, or `early`
    rows before them. For a target on the meta device, which has no values, nothing is called.
    """
    if target.is_meta:
        return iter(())
    height, threads = len(target), torch.get_num_threads()
    count = -(-height // (threads * rows)) * threads  # the same number for each thread
    cuts = spans(height + early, -(-height // count), multiple)
    return in_threads(lambda span: function(*span), ((max(0, top - early), bottom - early) for top, bottom in cuts))


def convolved(layer: Conv, x: Rows) -> Rows:
    shape, (reach, margin) = (*x.shape[:2], layer.out_channels), numbers(layer.padding)
    if winograd.suits(layer):
        return _transformed(layer, x, shape, lambda top, bottom: (top, top - reach, bottom + reach, 0))
    weight, bias = parameters_of(layer, x.dtype)

    def compute(top: int, bottom: int) -> Tensor:
        image = as_image(x(top - reach, bottom + reach))
        return activation(F.conv2d(image, weight, bias, padding=(0, margin), dilation=layer.dilation))[0].permute(
            1, 2, 0
        )

    return Rows(shape, x.dtype, x.device, compute)


def downsampled(layer: DownConv, x: Rows) -> Rows:
    downsample = downsampling(layer, x.dtype)
    shape = (x.shape[0] // 2, x.shape[1] // 2, layer.out_channels)

    def fill(top: int, bottom: int, rows: Tensor) -> None:
        downsample(x.within(2 * top, 2 * bottom + 1), rows)

    return Rows(shape, x.dtype, x.device, fill=fill)


def downsampling(layer: DownConv, dtype: torch.dtype) -> Callable[[Tensor, Tensor], None]:
    """Makes a function (input rows, target) that computes rows of a layer into `target`.

    If the last input row is missing, it counts as zero.
    """
    if winograd.suits(layer):
        convolution = winograd.of_layer(layer, LEAKY_SLOPE, dtype)
        return lambda rows, target: convolution([rows[None]], target[None])
    weight, bias = parameters_of(layer, dtype)

    def downsample(rows: Tensor, target: Tensor) -> None:
        rows = F.pad(rows, (0, 0, 0, 0, 0, 2 * len(target) + 1 - len(rows)))
        # Pads both sides by two and drops the first output column: one zero at the right would need a copy.
        image = F.conv2d(as_image(rows), weight, bias, layer.stride, padding=(0, 2))[..., 1:]
        target.copy_(activation(image)[0].permute(1, 2, 0))

    return downsample


def upsampled(layer: UpConv, x: Rows) -> Rows:
    shape = (2 * x.shape[0], 2 * x.shape[1], layer.out_channels)
    if winograd.suits(layer):
        return _transformed(
            layer, x, shape, lambda top, bottom: ((top + 1) // 2, (top - 1) // 2, bottom // 2 + 1, -(top % 2))
        )
    weight, bias = parameters_of(layer, x.dtype)

    def compute(top: int, bottom: int) -> Tensor:
        first, last = top // 2, -(-bottom // 2)
        image = as_image(x(first - 1, last + 1))
        rows = F.conv_transpose2d(image, weight, bias, layer.stride, padding=(3, numbers(layer.padding)[1]))
        return activation(rows)[0].permute(1, 2, 0)[top - 2 * first : bottom - 2 * first]

    return Rows(shape, x.dtype, x.device, compute)


def layer_by_layer(layers: Iterable[Any], x: Tensor) -> Tensor:
    """Applies convolutions one after the other, and stores the output of each: (H, W, C) -> (H', W', C')."""
    for layer in layers:
        rows = stored(x)
        x = (downsampled(layer, rows) if isinstance(layer, DownConv) else convolved(layer, rows)).keep()
    return x


def _transformed(layer: Any, x: Rows, shape: Sequence[int], reads: Callable[[int, int], Sequence[int]]) -> Rows:
    """Computes a layer by minimal filtering.

    Args:
        reads: first and last (exclusive) row of the output -> the input row at the first output row, the first and the
            last (exclusive) input row to read, and the shift of a `winograd.Convolution`.
    """
    convolution = winograd.of_layer(layer, LEAKY_SLOPE, x.dtype)
    parts = x.parts if fill_registers(*(part.shape[2] for part in x.parts)) else (x,)

    def fill(top: int, bottom: int, rows: Tensor) -> None:
        begin, first, last, shift = reads(top, bottom)
        sources = [part.within(first, last)[None] for part in parts]
        convolution(sources, rows[None], begin - max(first, 0), shift)

    return Rows(shape, x.dtype, x.device, fill=fill)


def numbers(pair: Sequence[int] | str) -> tuple[int, int]:
    """A layer's padding as two integers; for type checkers, since PyTorch's type also allows a string."""
    rows, columns = map(int, pair)
    return rows, columns


def parameters_of(layer: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer, as `dtype`."""
    return layer.weight.to(dtype), layer.bias.to(dtype)


def as_image(features: Tensor) -> Tensor:
    """View of features (H, W, C) as an image (1, C, H, W) that PyTorch recognizes as channels-last."""
    return features[None].permute(0, 3, 1, 2)  # [None] first: afterwards, the new dimension would get another stride
