"""Features that are computed a few rows at a time, and the layers that do so.

A band of them stays in the processor's cache, in memory that was used before: the operating system clears every page
that it maps anew, which takes longer than most layers do. Inside, features are (rows, columns, channels), the order in
which convolutions need no copies.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kpac.cpu import winograd
from kpac.cpu.instructions import fill_registers
from kpac.cpu.parallel import in_threads, spans
from kpac.models.layers import LEAKY_SLOPE, Conv, DownConv, UpConv, activation

BAND_BYTES = 4 << 20  # of the widest features of a band
CHAIN_BYTES = 10 << 20  # the same where several layers follow in a band, and compute some of its neighbours' rows, too
BLOCK = winograd.BLOCK  # rows that are computed together

Result = TypeVar("Result")


class Rows:
    """Features that are computed a few rows at a time, when they are asked for; beyond the border they are zero.

    Args:
        shape: (rows, columns, channels).
        dtype: float32 or bfloat16.
        compute: first and last (excluded) row within the border -> these rows. Several threads call it at a time.
        fill: computes these rows into a tensor; either of both will do.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        compute: Callable[[int, int], Tensor] | None = None,
        fill: Callable[[int, int, Tensor], object] | None = None,
    ):
        self.shape, self.dtype = tuple(shape), dtype
        self._compute, self._fill = compute, fill

    @property
    def parts(self) -> "Sequence[Rows]":
        """What lies beside each other in the channels."""
        return (self,)

    def compute(self, top: int, bottom: int) -> Tensor:
        if self._compute is not None:
            return self._compute(top, bottom)
        rows = torch.empty(bottom - top, *self.shape[1:], dtype=self.dtype, device="cpu")
        self.fill(top, bottom, rows)
        return rows

    def fill(self, top: int, bottom: int, rows: Tensor) -> None:
        if self._fill is not None:
            self._fill(top, bottom, rows)
        elif self._compute is not None:
            rows.copy_(self._compute(top, bottom))

    def within(self, top: int, bottom: int) -> Tensor:
        """The rows among these that there are."""
        return self.compute(*self.inside(top, bottom))

    def __call__(self, top: int, bottom: int) -> Tensor:
        """All of these rows."""
        first, last = self.inside(top, bottom)
        return F.pad(self.compute(first, last), (0, 0, 0, 0, first - top, bottom - last))

    def inside(self, top: int, bottom: int) -> tuple[int, int]:
        return max(top, 0), min(bottom, self.shape[0])

    def keep(self, *reads: "Rows", size: int | None = None) -> Tensor:
        """All rows in memory.

        Args:
            reads: what a band reads and makes on the way, besides these rows.
            size: bytes of a band of the widest of them; None for the usual number.
        """
        kept = torch.empty(self.shape, dtype=self.dtype, device="cpu")
        rows = min(rows_of(size or BAND_BYTES, features) for features in (self, *reads))
        for _ in in_bands(lambda top, bottom: self.fill(top, bottom, kept[top:bottom]), self.shape[0], rows, BLOCK):
            continue
        return kept

    def bytes(self) -> int:
        """Of a row."""
        return self.shape[1] * self.shape[2] * self.dtype.itemsize


class Joined(Rows):
    """Features beside each other in the channels."""

    def __init__(self, parts: Sequence[Rows]):
        rows, columns, _ = parts[0].shape
        self._parts = parts
        shape = (rows, columns, sum(part.shape[2] for part in parts))
        super().__init__(shape, parts[0].dtype, lambda *ends: torch.cat([part.compute(*ends) for part in parts], dim=2))

    @property
    def parts(self) -> Sequence[Rows]:
        return self._parts


def stored(x: Tensor) -> Rows:
    return Rows(x.shape, x.dtype, lambda top, bottom: x[top:bottom])


def rows_of(size: int, rows: Rows) -> int:
    """How many rows take about so many bytes, in whole blocks."""
    return max(1, size // (BLOCK * rows.bytes())) * BLOCK


def in_bands(
    function: Callable[[int, int], Result], height: int, rows: int, multiple: int, early: int = 0
) -> Iterator[Result]:
    """`function` of the first and the last (excluded) row of bands of about so many rows, in threads.

    Bands end at multiples of `multiple`, or `early` rows before them.
    """
    threads = torch.get_num_threads()
    count = -(-height // (threads * rows)) * threads  # the same for each thread
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

    return Rows(shape, x.dtype, compute)


def downsampled(layer: DownConv, x: Rows) -> Rows:
    downsample = downsampling(layer, x.dtype)
    shape = (x.shape[0] // 2, x.shape[1] // 2, layer.out_channels)

    def fill(top: int, bottom: int, rows: Tensor) -> None:
        downsample(x.within(2 * top, 2 * bottom + 1), rows)

    return Rows(shape, x.dtype, fill=fill)


def downsampling(layer: DownConv, dtype: torch.dtype) -> Callable[[Tensor, Tensor], None]:
    """A call computes some rows from those of the input that they read; the last one may be missing, and is zero."""
    if winograd.suits(layer):
        convolution = winograd.of_layer(layer, LEAKY_SLOPE, dtype)
        return lambda rows, target: convolution([rows[None]], target[None])
    weight, bias = parameters_of(layer, dtype)

    def downsample(rows: Tensor, target: Tensor) -> None:
        rows = F.pad(rows, (0, 0, 0, 0, 0, 2 * len(target) + 1 - len(rows)))
        # Two zeros at both sides, and the first column dropped, is one zero at the right without a copy.
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

    return Rows(shape, x.dtype, compute)


def _transformed(layer: Any, x: Rows, shape: Sequence[int], reads: Callable[[int, int], Sequence[int]]) -> Rows:
    """A layer by minimal filtering.

    Args:
        reads: the output's first and last row -> the input's row where they begin, the first and the last row of the
            input that they read, and the shift of a `winograd.Convolution`.
    """
    convolution = winograd.of_layer(layer, LEAKY_SLOPE, x.dtype)
    parts = x.parts if fill_registers(*(part.shape[2] for part in x.parts)) else (x,)

    def fill(top: int, bottom: int, rows: Tensor) -> None:
        begin, first, last, shift = reads(top, bottom)
        sources = [part.within(first, last)[None] for part in parts]
        convolution(sources, rows[None], begin - max(first, 0), shift)

    return Rows(shape, x.dtype, fill=fill)


def numbers(pair: Sequence[int] | str) -> tuple[int, int]:
    """A layer's padding, which PyTorch also lets be a word."""
    rows, columns = map(int, pair)
    return rows, columns


def parameters_of(layer: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias."""
    return layer.weight.to(dtype), layer.bias.to(dtype)


def as_image(features: Tensor) -> Tensor:
    """(H, W, C) -> (1, C, H, W), in an order that PyTorch knows as channels last."""
    return features[None].permute(0, 3, 1, 2)  # not permuted first: the stride of the new dimension would be another
