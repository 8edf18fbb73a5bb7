"""What an image file says of itself before it is decoded."""

import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

BITS_PER_SAMPLE = 258  # the TIFF tag


@dataclass(frozen=True)
class ImageHeader:
    """Facts from a file's header.

    Args:
        width, height: in pixels, before the EXIF orientation is applied.
        bit_depth: of one channel.
        gray: whether it has one channel of colour.
        alpha: whether it has a channel of transparency.
    """

    width: int
    height: int
    bit_depth: int
    gray: bool
    alpha: bool


def read_header(path: Path) -> ImageHeader | None:
    """The facts, or None when the file cannot be read or holds no image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # nothing is decompressed
            with Image.open(path) as image:
                return ImageHeader(
                    *image.size,
                    bit_depth=_bit_depth(path, image),
                    gray=image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16"),
                    alpha=image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info,
                )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _bit_depth(path: Path, image: Image.Image) -> int:
    """Pillow itself gives 8 bits for colours of 16, so this asks the file."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24]
    if image.format == "TIFF":
        return max(image.tag_v2.get(BITS_PER_SAMPLE, (1,)))
    return 8
