"""Rectangular areas of an image, and features computed for an area."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from kpac.models.reach import Span


@dataclass(frozen=True)
class Area:
    """A rectangle: rows `top` to `bottom` and columns `left` to `right`, the ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> int:
        """Number of positions."""
        return (self.bottom - self.top) * (self.right - self.left)

    def grown(self, halo: Span, whole: "Area") -> "Area":
        """This area with a halo around it, clipped to `whole`; `halo` is the span around position 0."""
        return Area(
            max(whole.top, self.top + halo.first),
            min(whole.bottom, self.bottom + halo.last),
            max(whole.left, self.left + halo.first),
            min(whole.right, self.right + halo.last),
        )

    def within(self, outer: "Area") -> "Area":
        """The same area in coordinates relative to the top left corner of `outer`."""
        return Area(self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left)

    def of(self, x: Tensor, scale: int = 1) -> Tensor:
        """Slices this area from a tensor (N, C, H, W); a position stands for `scale` x `scale` pixels of the tensor."""
        return x[..., self.top * scale : self.bottom * scale, self.left * scale : self.right * scale]

    def tiles(self, height: int, width: int) -> Iterator["Area"]:
        """Divides the area into tiles of about equal size, at most height x width."""
        rows, columns = _cuts(self.top, self.bottom, height), _cuts(self.left, self.right, width)
        for top, bottom in pairwise(rows):
            for left, right in pairwise(columns):
                yield Area(top, bottom, left, right)


@dataclass(frozen=True)
class Features:
    """Features of an area, (1, C, H, W)."""

    area: Area
    values: Tensor

    def of(self, area: Area) -> Tensor:
        """Slices the features of a smaller area."""
        return area.within(self.area).of(self.values)


def _cuts(first: int, last: int, side: int) -> list[int]:
    count = -(-(last - first) // side)
    return [first + (last - first) * index // count for index in range(count + 1)]
