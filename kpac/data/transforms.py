"""One geometric draw, applied alike to all views and the target."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Geometry:
    """Where a training crop lies and how it is mirrored.

    Args:
        top, left: its first row and column, in pixels.
        size: its side, in pixels.
        mirror: whether it is mirrored left to right.
        flip: whether it is mirrored top to bottom.
    """

    top: int
    left: int
    size: int
    mirror: bool
    flip: bool

    @staticmethod
    def draw(height: int, width: int, size: int, flips: bool, generator: np.random.Generator) -> "Geometry":
        """A crop anywhere in a height x width image, each mirroring with probability one half if `flips`."""
        top, left = generator.integers(height - size + 1), generator.integers(width - size + 1)
        mirror, flip = (generator.random(2) < 0.5) & flips
        return Geometry(int(top), int(left), size, bool(mirror), bool(flip))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """H x W x C -> size x size x C, a view of the same memory."""
        crop = image[self.top : self.top + self.size, self.left : self.left + self.size]
        return crop[:: -1 if self.flip else 1, :: -1 if self.mirror else 1]

    def order(self, views: Sequence[str]) -> list[str]:
        """Which view to read in the place of each: mirrored, the left half of the aperture becomes the right one."""
        other = {"left": "right", "right": "left"}
        return [other.get(view, view) if self.mirror else view for view in views]
