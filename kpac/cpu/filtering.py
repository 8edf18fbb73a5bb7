"""Minimal filtering: the one-dimensional transforms of Winograd convolutions.

Follows Winograd, in the form of Lavin and Gray (arXiv 1509.09308). Neighbouring outputs of a convolution are like the
coefficients of a product of polynomials. One transform evaluates the inputs at a few points, another the kernel; their
values are multiplied, and a last transform turns the products into outputs. F(outputs, taps) needs outputs + taps - 1
points.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from kpac.cpu.instructions import Matrix

POINTS = (0, 1, -1, 2, -2)  # and infinity


class Filtering(NamedTuple):
    """The transforms of a minimal filtering in one dimension; both dimensions use the same.

    Args:
        spread: (points, window): transforms a window of inputs to values at the points.
        kernels: (values, taps): transforms the kernel, for each of the interleaved parts of the output.
        chosen: for each point, the index of its kernel value.
        gather: (outputs, points): transforms products to neighbouring outputs of a part.
        step: number of inputs from one window to the next.
        before: number of inputs of the first window before the position of the first output.
    """

    spread: Matrix
    kernels: tuple[Matrix, ...]
    chosen: tuple[int, ...]
    gather: Matrix
    step: int
    before: int


def minimal(outputs: int, taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """The transform matrices of F(outputs, taps) for inputs, kernel and products."""
    places = POINTS[: outputs + taps - 2]
    spread: list[Iterable[float]] = []
    kernel: list[list[float]] = []
    for place in places:
        others = np.poly([other for other in places if other != place])[::-1]
        scale = np.polyval(others[::-1], place)
        spread.append((*others, 0.0))
        kernel.append([place**tap / scale for tap in range(taps)])
    spread.append(np.poly(places)[::-1])
    kernel.append([0.0] * (taps - 1) + [1.0])
    gather = [[float(place**output) for place in places] + [float(output == outputs - 1)] for output in range(outputs)]
    return _matrix(spread), _matrix(kernel), _matrix(gather)


def _matrix(rows: Iterable[Iterable[float]]) -> Matrix:
    return tuple(tuple(float(value) + 0.0 for value in row) for row in rows)


@lru_cache
def same_size(outputs: int, taps: int) -> Filtering:
    """The filtering of a size-preserving convolution with an odd kernel."""
    spread, kernel, gather = minimal(outputs, taps)
    return Filtering(spread, (kernel,), tuple(range(len(spread))), gather, outputs, taps // 2)


@lru_cache
def doubling() -> Filtering:
    """The filtering of a transposed convolution of stride 2 with 4 taps, one of them before the input's position.

    Part 0 has the outputs at 0, 2, ..., part 1 those at -1, 1, ...: both read the same windows.
    """
    spread, kernel, gather = minimal(4, 2)
    kernels = [np.array(kernel) @ np.eye(4)[list(taps)] for taps in ((3, 1), (2, 0))]
    return Filtering(spread, tuple(map(_matrix, kernels)), tuple(range(5)), gather, 4, 1)


@lru_cache
def halving(taps: int) -> Filtering:
    """The filtering of a convolution of stride 2.

    Even taps read even inputs, odd taps read odd inputs: each set is a filtering. With 3 taps, the single odd tap needs
    no transform.

    Args:
        taps: 3, or 4 with one of them before the output's position.
    """
    spread, kernel, gather = map(np.array, minimal(4, 2))
    odd, odd_kernel, odd_gather, chosen = spread, kernel, gather, tuple(range(10))
    if taps == 3:
        odd, odd_kernel, odd_gather, chosen = np.eye(4), np.eye(1), np.eye(4), (0, 1, 2, 3, 4, 5, 5, 5, 5)
    inputs = np.zeros((len(spread) + len(odd), 2 * odd.shape[1] + 1 - (taps == 4)))
    inputs[: len(spread), ::2] = spread
    inputs[len(spread) :, 1::2] = odd
    kernels = np.vstack([kernel @ np.eye(taps)[::2], odd_kernel @ np.eye(taps)[1::2]])
    return Filtering(
        _matrix(inputs), (_matrix(kernels),), tuple(chosen), _matrix(np.hstack([gather, odd_gather])), 8, taps - 3
    )


def of_layer(layer: Any) -> Filtering | None:
    """The filtering for a layer of `kpac.models.layers`; None if there is none."""
    facts = (layer.kernel_size, layer.stride, layer.dilation, layer.padding)
    if isinstance(layer, nn.ConvTranspose2d):
        return doubling() if facts == ((4, 4), (2, 2), (1, 1), (1, 1)) else None
    known = {
        ((3, 3), (1, 1), (1, 1), (1, 1)): same_size(4, 3),
        ((5, 5), (1, 1), (2, 2), (4, 4)): same_size(2, 5),
        ((3, 3), (2, 2), (1, 1), (0, 0)): halving(3),
    }
    return known.get(facts)


def reverse(filtering: Filtering, weight: Tensor) -> tuple[Filtering, Tensor]:
    """The filtering and the weight that compute the gradient of a convolution's input from that of its output.

    Args:
        filtering: filtering of the convolution.
        weight: weight of the convolution, (F, C, taps, taps).
    """
    weight = weight.transpose(0, 1)
    if filtering == doubling():
        return halving(4), weight
    if filtering == halving(3):
        return doubling(), pad(weight, (1, 0, 1, 0))
    return filtering, weight.flip(2, 3)


@lru_cache
def values_of_taps(filtering: Filtering, each_point: bool = False) -> Tensor:
    """Matrix that transforms a two-dimensional kernel: (values ** 2 * parts ** 2, taps ** 2) float64.

    Args:
        filtering: filtering of the convolution.
        each_point: one row per point instead of one per value; points may share a value.
    """
    kernels = torch.tensor(filtering.kernels, dtype=torch.float64, device="cpu")
    if each_point:
        kernels = kernels[:, list(filtering.chosen)]
    return torch.einsum("apk,bql->pqabkl", kernels, kernels).flatten(0, 3).flatten(1)
