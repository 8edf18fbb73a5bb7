"""A photograph in memory: pixels at their own bit depth, and the file's metadata."""

import logging
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kpac.images.depth import bits, from_float, to_float
from kpac.images.directories import Tags

log = logging.getLogger(__name__)

FLIPPED_AXES = {
    2: (1,),
    3: (0, 1),
    4: (0,),
    6: (1,),
    7: (0, 1),
    8: (0,),
}  # EXIF orientation -> axes to flip after transposing


@dataclass(frozen=True)
class Metadata:
    """Metadata of a photograph, for any file format."""

    tags: Tags = field(default_factory=Tags)  # EXIF tags, with the orientation that the file states
    icc_profile: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None  # pixels per inch, across and down
    own: Any = None  # data that only a file of the same format can carry; its module defines the type


@dataclass(frozen=True)
class Photograph:
    """One photograph, upright."""

    pixels: np.ndarray  # H x W x 3 RGB, uint8 or uint16; a gray file's channels are equal
    format: str  # format of the file, such as "PNG"; a key of `kpac.images.kinds.READ`
    alpha: np.ndarray | None = None  # H x W, of the same type, or None; the colors are not premultiplied
    gray: bool = False  # whether the file has a single color channel
    orientation: int = 1  # EXIF orientation of the stored pixels, 1 to 8; `save` stores them with the same orientation
    metadata: Metadata = field(default_factory=Metadata)  # metadata of the file
    left_behind: tuple[str, ...] = ()  # content of the file that `save` cannot write, in words

    @classmethod
    def from_channels(
        cls,
        channels: np.ndarray,
        file_format: str,
        orientation: int = 1,
        metadata: Metadata | None = None,
        left_behind: tuple[str, ...] = (),
    ) -> "Photograph":
        """Makes a photograph from channels as they are stored in a file.

        Args:
            channels: H x W (gray) or H x W x C, uint8 or uint16; C is 1, 2 (gray and alpha), 3 or 4 (RGB and alpha).
            file_format: see `Photograph`.
            orientation: EXIF orientation of the channels; numbers outside of 1 to 8 count as 1.
            metadata, left_behind: see `Photograph`.
        """
        orientation = orientation if orientation in range(1, 9) else 1
        upright = _turn_upright(np.atleast_3d(channels), orientation)
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
        """The channels as they are stored in the file, H x W x C; the inverse of `from_channels`."""
        colour = self.pixels[..., :1] if self.gray else self.pixels
        channels = colour if self.alpha is None else np.dstack([colour, self.alpha])
        return np.ascontiguousarray(_turn_back(channels, self.orientation))

    def with_image(self, image: np.ndarray) -> "Photograph":
        """Returns a copy with other pixels, rounded to the photograph's bit depth.

        Args:
            image: H x W x 3 in [0, 1]; for a gray photograph, the mean over the channels is taken.

        Raises:
            ValueError: the image has another size.
        """
        if image.shape != self.pixels.shape:
            raise ValueError(f"expected an image of shape {self.pixels.shape}, found {image.shape}")
        if self.gray:
            image = np.broadcast_to(image.mean(axis=2, keepdims=True), image.shape)
        return replace(self, pixels=from_float(image, bits(self.pixels)))

    def save(self, path: str | Path, quality: int = 95) -> None:
        """Writes the photograph with its metadata, atomically.

        Content that the format cannot store is left out with a warning.

        Args:
            path: the suffix chooses the format; with an unknown suffix, the photograph's format is kept.
            quality: quality of JPEG, WebP and HEIC, 1 to 100.

        Raises:
            UserError: the file cannot be written, or the image is too large for the format.
        """
        from kpac.images.writing import write_photograph  # imported late: it imports this module

        missing = write_photograph(Path(path), self, quality)
        if missing:
            _say_left_behind(Path(path).parent, missing)


def turned_upright(photograph: Photograph) -> Photograph:
    """Returns a copy whose stored pixels are upright."""
    tags = photograph.metadata.tags
    if photograph.orientation != 1:
        tags = tags.with_orientation(1)
    return replace(photograph, orientation=1, metadata=replace(photograph.metadata, tags=tags))


@cache
def _say_left_behind(folder: Path, what: tuple[str, ...]) -> None:
    log.warning("%s: left out, since the format cannot store it: %s", folder, "; ".join(what))


def _turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    turned = pixels.swapaxes(0, 1) if orientation >= 5 else pixels
    return np.flip(turned, FLIPPED_AXES.get(orientation, ()))


def _turn_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    turned = np.flip(pixels, FLIPPED_AXES.get(orientation, ()))
    return turned.swapaxes(0, 1) if orientation >= 5 else turned
