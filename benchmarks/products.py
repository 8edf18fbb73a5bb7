"""Compares our matrix products for a few tiles, computed in registers, with the library's batched products.

    python benchmarks/products.py

Prints GFLOP/s of one core, the best of several runs, as a Markdown table.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from kpac.cpu.compiled import compiled
from kpac.cpu.vectors import product
from kpac.text import markdown_table

POINTS = 36
SIZES = ((56, 48, 48), (24, 96, 96), (216, 96, 96), (16, 240, 96), (120, 96, 32))  # tiles, channels, filters


def main() -> None:
    torch.set_num_threads(1)
    batch = batched()
    rows = [
        [" x ".join(map(str, (POINTS, *size))), *(f"{speed:.0f}" for speed in compare(batch, *size))] for size in SIZES
    ]
    print(markdown_table(["points x tiles x channels x filters", "library [GFLOP/s]", "ours [GFLOP/s]"], rows))


def compare(batch: Callable, tiles: int, channels: int, filters: int) -> tuple[float, float]:
    """GFLOP/s of the library's product and of ours."""
    a, b = torch.rand(POINTS, tiles, channels), torch.rand(POINTS, channels, filters)
    c = torch.empty(POINTS, tiles, filters)
    work = 2e-9 * POINTS * tiles * channels * filters
    library = work / best(lambda: torch.bmm(a, b, out=c))
    ours = work / best(lambda: batch(a.data_ptr(), b.data_ptr(), c.data_ptr(), tiles, channels, filters))
    torch.testing.assert_close(c, a @ b)
    return library, ours


def batched() -> Callable:
    points, multiply = POINTS, product(torch.float32)

    @compiled
    def batch(a, b, c, rows, depth, width):
        for point in range(points):
            left, right = a + 4 * point * rows * depth, b + 4 * point * depth * width
            found = c + 4 * point * rows * width
            multiply(left, 4 * depth, 4, right, 4 * width, found, 4 * width, rows, depth, width)

    return batch


def best(call: Callable[[], object]) -> float:
    """Seconds of the fastest call."""
    seconds = []
    for _ in range(50):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
