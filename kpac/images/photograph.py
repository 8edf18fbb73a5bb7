"""A photograph as a file holds it: pixels at their own bit depth, and what the file carries besides them."""

import logging
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kpac.images.depth import bits, from_float, to_float
from kpac.images.directories import Tags

log = logging.getLogger(__name__)

FLIPPED_AXES = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}  # of EXIF orientations, after transposing


@dataclass(frozen=True)
class Metadata:
    """What a file of any format can say besides its pixels.

    Args:
        tags: EXIF, with the orientation that the file states.
        icc_profile: how to show the colours.
        xmp: an XMP packet.
        dpi: pixels an inch, across and down.
        own: what only a file of the same format can carry, in the terms of its module.
    """

    tags: Tags = field(default_factory=Tags)
    icc_profile: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    own: Any = None


@dataclass(frozen=True)
class Photograph:
    """One photograph, upright.

    Args:
        pixels: H x W x 3 RGB, uint8 or uint16; a gray file's channels are equal.
        format: of the file, such as "PNG"; a key of `kpac.images.kinds.READ`.
        alpha: H x W, of the same type; None where there is none. The colours are not multiplied by it.
        gray: the file has a single channel of colour.
        orientation: EXIF's number for how the stored pixels lie, 1 to 8; `save` stores them the same way.
        metadata: what else the file says.
        left_behind: what it holds that `save` cannot write, in words.
    """

    pixels: np.ndarray
    format: str
    alpha: np.ndarray | None = None
    gray: bool = False
    orientation: int = 1
    metadata: Metadata = field(default_factory=Metadata)
    left_behind: tuple[str, ...] = ()

    @classmethod
    def from_channels(
        cls,
        channels: np.ndarray,
        file_format: str,
        orientation: int = 1,
        metadata: Metadata | None = None,
        left_behind: tuple[str, ...] = (),
    ) -> "Photograph":
        """A photograph from channels as they are stored.

        Args:
            channels: H x W x C, uint8 or uint16; C is 1 (gray), 2 (gray and alpha), 3 (RGB) or 4 (RGB and alpha).
            file_format: see `Photograph`.
            orientation: how they lie; numbers outside of 1 to 8 count as 1.
            metadata, left_behind: see `Photograph`.
        """
        orientation = orientation if orientation in range(1, 9) else 1
        upright = _turn_upright(channels, orientation)
        count = upright.shape[2]
        gray = count < 3
        pixels = np.repeat(upright[..., :1], 3, axis=2) if gray else np.ascontiguousarray(upright[..., :3])
        alpha = np.ascontiguousarray(upright[..., -1]) if count in (2, 4) else None
        return cls(pixels, file_format, alpha, gray, orientation, metadata or Metadata(), left_behind)

    @property
    def image(self) -> np.ndarray:
        """The pixels as H x W x 3 float32 in [0, 1]."""
        return to_float(self.pixels)

    @property
    def stored(self) -> np.ndarray:
        """The channels as they lie in the file, H x W x C; the inverse of `from_channels`."""
        colour = self.pixels[..., :1] if self.gray else self.pixels
        channels = colour if self.alpha is None else np.dstack([colour, self.alpha])
        return np.ascontiguousarray(_turn_back(channels, self.orientation))

    def with_image(self, image: np.ndarray) -> "Photograph":
        """The same photograph with other pixels, rounded to its bit depth.

        Args:
            image: H x W x 3 in [0, 1]; of a gray photograph the mean over the channels is taken.

        Raises:
            ValueError: another size.
        """
        if image.shape != self.pixels.shape:
            raise ValueError(f"expected an image of shape {self.pixels.shape}, found {image.shape}")
        if self.gray:
            image = np.broadcast_to(image.mean(axis=2, keepdims=True), image.shape)
        return replace(self, pixels=from_float(image, bits(self.pixels)))

    def save(self, path: str | Path, quality: int = 95) -> None:
        """Writes the photograph with all that it carries; whole or not at all.

        What the file cannot carry is left out, with a notice.

        Args:
            path: the suffix chooses the format; one that stands for none keeps the photograph's own.
            quality: of JPEG, WebP and HEIC, 1 to 100.

        Raises:
            UserError: the file cannot be written, or the format has no room for so many pixels.
        """
        from kpac.images.writing import write_photograph  # which imports this module

        missing = write_photograph(Path(path), self, quality)
        if missing:
            _say_left_behind(Path(path).parent, missing)


def turned_upright(photograph: Photograph) -> Photograph:
    """The same photograph, stored upright."""
    tags = photograph.metadata.tags
    if photograph.orientation != 1:
        tags = tags.with_orientation(1)
    return replace(photograph, orientation=1, metadata=replace(photograph.metadata, tags=tags))


@cache
def _say_left_behind(folder: Path, what: tuple[str, ...]) -> None:
    log.warning("%s: left behind what cannot be written: %s", folder, "; ".join(what))


def _turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    turned = pixels.swapaxes(0, 1) if orientation >= 5 else pixels
    return np.flip(turned, FLIPPED_AXES.get(orientation, ()))


def _turn_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    turned = np.flip(pixels, FLIPPED_AXES.get(orientation, ()))
    return turned.swapaxes(0, 1) if orientation >= 5 else turned
