"""Features that are computed a few rows at a time, and the layers that do so.

A band of them stays in the processor's cache, in memory that was used before: the operating system clears every page
that it maps anew, which takes longer than most layers do. Inside, features are (rows, columns, channels), the order in
which convolutions need no copies.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kpac.models.fast import winograd
from kpac.models.fast.parallel import in_threads, spans, thread_count
from kpac.models.layers import LEAKY_SLOPE, Conv, DownConv, UpConv, activation

BAND_BYTES = 4 << 20  # of the widest features of a band
CHAIN_BYTES = 10 << 20  # the same where several layers follow in a band, and compute some of its neighbours' rows, too
BLOCK = winograd.BLOCK  # rows that are computed together

Result = TypeVar("Result")


@dataclass(frozen=True)
class Rows:
    """Features that are computed a few rows at a time, when they are asked for; beyond the border they are zero.

    Args:
        shape: (rows, columns, channels).
        dtype: float32 or bfloat16.
        compute: first and last (excluded) row within the border -> these rows. Several threads call it at a time.
    """

    shape: tuple[int, int, int]
    dtype: torch.dtype
    compute: Callable[[int, int], Tensor]

    def __call__(self, top: int, bottom: int) -> Tensor:
        first, last = max(top, 0), min(bottom, self.shape[0])
        rows = self.compute(first, last)
        if (first, last) != (top, bottom):
            rows = F.pad(rows, (0, 0, 0, 0, first - top, bottom - last))
        return rows

    def keep(self, *reads: "Rows", size: int | None = None) -> Tensor:
        """All rows in memory.

        Args:
            reads: what a band reads and makes on the way, besides these rows.
            size: bytes of a band of the widest of them; None for the usual number.
        """
        kept = torch.empty(self.shape, dtype=self.dtype)

        def store(top: int, bottom: int) -> None:
            kept[top:bottom] = self(top, bottom)

        rows = min(rows_of(size or BAND_BYTES, features) for features in (self, *reads))
        for _ in in_bands(store, self.shape[0], rows, BLOCK):
            continue
        return kept

    def bytes(self) -> int:
        """Of a row."""
        return self.shape[1] * self.shape[2] * self.dtype.itemsize


def rows_of(size: int, rows: Rows) -> int:
    """How many rows take about so many bytes, in whole blocks."""
    return max(1, size // (BLOCK * rows.bytes())) * BLOCK


def in_bands(function: Callable[[int, int], Result], height: int, rows: int, multiple: int) -> Iterator[Result]:
    """`function` of the first and the last (excluded) row of bands of about so many rows, in threads."""
    threads = thread_count()
    count = -(-height // (threads * rows)) * threads  # the same for each thread
    return in_threads(lambda span: function(*span), spans(height, -(-height // count), multiple))


def stored(x: Tensor) -> Rows:
    return Rows(tuple(x.shape), x.dtype, lambda top, bottom: x[top:bottom])


def joined(parts: Sequence[Rows]) -> Rows:
    rows, columns, _ = parts[0].shape
    shape = (rows, columns, sum(part.shape[2] for part in parts))
    return Rows(shape, parts[0].dtype, lambda top, bottom: torch.cat([part(top, bottom) for part in parts], dim=2))


def convolved(layer: Conv, x: Rows) -> Rows:
    reach = layer.padding[0]
    convolve = _transformed(layer, x.dtype) if winograd.suits(layer) else _convolution(layer, x.dtype)
    shape = (*x.shape[:2], layer.out_channels)
    return Rows(shape, x.dtype, lambda top, bottom: convolve(x(top - reach, bottom + reach)))


def downsampled(layer: DownConv, x: Rows) -> Rows:
    downsample = downsampling(layer, x.dtype)
    shape = (x.shape[0] // 2, x.shape[1] // 2, layer.out_channels)
    return Rows(shape, x.dtype, lambda top, bottom: downsample(x(2 * top, 2 * bottom + 1)))


def upsampled(layer: UpConv, x: Rows) -> Rows:
    weight, bias = parameters_of(layer, x.dtype)

    def compute(top: int, bottom: int) -> Tensor:
        first, last = top // 2, -(-bottom // 2)
        image = as_image(x(first - 1, last + 1))
        rows = F.conv_transpose2d(image, weight, bias, layer.stride, padding=(3, layer.padding[1]))
        return activation(rows)[0].permute(1, 2, 0)[top - 2 * first : bottom - 2 * first]

    return Rows((2 * x.shape[0], 2 * x.shape[1], layer.out_channels), x.dtype, compute)


def _transformed(layer: Conv, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    convolution = winograd.Convolution(layer.weight, layer.bias, layer.dilation[0], LEAKY_SLOPE, dtype)
    return lambda rows: convolution(rows, layer.padding[0])


def _convolution(layer: Conv, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A layer and its activation on rows that hold their vertical padding, as are those of `downsampling`."""
    weight, bias = parameters_of(layer, dtype)
    options = {"padding": (0, layer.padding[1]), "dilation": layer.dilation}
    return lambda rows: activation(F.conv2d(as_image(rows), weight, bias, **options))[0].permute(1, 2, 0)


def downsampling(layer: DownConv, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    weight, bias = parameters_of(layer, dtype)

    def downsample(rows: Tensor) -> Tensor:
        # Two zeros at both sides, and the first column dropped, is one zero at the right without a copy.
        image = F.conv2d(as_image(rows), weight, bias, layer.stride, padding=(0, 2))[..., 1:]
        return activation(image)[0].permute(1, 2, 0)

    return downsample


def parameters_of(layer: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias."""
    return layer.weight.to(dtype), layer.bias.to(dtype)


def as_image(features: Tensor) -> Tensor:
    """(H, W, C) -> (1, C, H, W), in an order that PyTorch knows as channels last."""
    return features[None].permute(0, 3, 1, 2)  # not permuted first: the stride of the new dimension would be another
