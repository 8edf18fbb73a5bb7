"""A photograph as a file: pixels at their own bit depth, and what the file carries besides them.

Pillow reads and writes 8-bit images and finds the metadata of all. It has no 16-bit colour, so OpenCV decodes those
pixels, and `kpac.restore.formats` writes them.
"""

import io
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from kpac.data.images import bits, from_float, to_float
from kpac.errors import UserError
from kpac.files import whole_file
from kpac.restore.formats import TiffTags, read_tiff_tags, without_orientation, write_png, write_tiff

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "TIFF", "JPEG", "WEBP")  # Pillow calls a JPEG with more images behind it, as phones write them, MPO
MODES = {"RGB", "RGBA", "L", "LA", "I;16", "I;16B", "I;16L"}
CONVERTED = {"1": "L", "P": "RGB", "PA": "RGBA", "RGBX": "RGB", "RGBa": "RGBA", "La": "LA", "YCbCr": "RGB"}
FLIPPED_AXES = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}  # of EXIF orientations, after transposing


@dataclass(frozen=True)
class Photograph:
    """One photograph, upright.

    Args:
        pixels: H x W x 3 RGB, uint8 or uint16; a gray file's channels are equal.
        format: "PNG", "TIFF", "JPEG" or "WEBP".
        alpha: H x W, of the same type; None where there is none.
        gray: the file has a single channel of colour.
        orientation: EXIF's number for how the stored pixels lie, 1 to 8; `save` stores them the same way.
        metadata: what Pillow takes beside the pixels: EXIF, ICC profile, resolution.
        tags: a TIFF's, in place of EXIF and resolution.
    """

    pixels: np.ndarray
    format: str
    alpha: np.ndarray | None = None
    gray: bool = False
    orientation: int = 1
    metadata: dict[str, Any] = field(default_factory=dict)
    tags: TiffTags | None = None

    @property
    def image(self) -> np.ndarray:
        """The pixels as H x W x 3 float32 in [0, 1]."""
        return to_float(self.pixels)

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
        """Writes the photograph in its format, with all that it carries; whole or not at all.

        Args:
            path: any name; the suffix does not choose the format.
            quality: of JPEG and WebP, 1 to 100.

        Raises:
            UserError: the file cannot be written, or the format has no room for so many pixels.
        """
        colour = self.pixels[..., :1] if self.gray else self.pixels
        channels = colour if self.alpha is None else np.dstack([colour, self.alpha])
        stored = np.ascontiguousarray(_turn_back(channels, self.orientation))
        with whole_file(path) as partial:
            if self.format == "TIFF":
                write_tiff(partial, stored, self.tags, self.metadata.get("icc_profile"))
            elif stored.dtype == np.uint16:
                write_png(partial, stored, self.metadata)
            else:
                image = Image.fromarray(stored[..., 0] if stored.shape[2] == 1 else stored)
                lossy = {"quality": quality, "subsampling": 0} if self.format == "JPEG" else {"quality": quality}
                try:
                    image.save(partial, self.format, **self.metadata, **({} if self.format == "PNG" else lossy))
                except ValueError as error:
                    raise UserError(f"{path}: cannot be written as {self.format} ({error})") from None


def read_photograph(path: str | Path) -> Photograph:
    """Reads a PNG, TIFF, JPEG or WebP file of 8 or 16 bits.

    Raises:
        UserError: missing, damaged, in another format or colour space, or with several pages.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images and odd metadata; what cannot be read is raised
            with Image.open(path, formats=FORMATS) as file:
                return _read(path, file)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path}: more pixels than {2 * Image.MAX_IMAGE_PIXELS:,}; cut it into parts") from None
    except UnidentifiedImageError:
        raise UserError(
            f"{path}: no image that can be read ({path.stat().st_size:,} bytes); expected PNG, TIFF, JPEG or WebP"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, cv2.error) as error:  # what Pillow raises for damaged files
        raise UserError(f"{path}: not a whole image file ({error})") from None


def _read(path: Path, file: Image.Image) -> Photograph:
    if file.format != "MPO" and getattr(file, "n_frames", 1) > 1:
        raise UserError(f"{path}: holds {file.n_frames} images; expected one")
    mode = CONVERTED.get(file.mode, file.mode)
    if file.mode == "P" and "transparency" in file.info:
        mode = "RGBA"
    if mode not in MODES:
        raise UserError(f"{path}: expected RGB or gray of 8 or 16 bits, found {file.mode}; convert it first")
    orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
    orientation = orientation if orientation in range(1, 9) else 1
    tags = read_tiff_tags(file) if file.format == "TIFF" else None
    kept = ("icc_profile",) if tags else ("exif", "icc_profile", "dpi")
    channels = _decode(path, file, mode, orientation)
    metadata = {key: file.info[key] for key in kept if file.info.get(key)}  # after decoding, which may find more
    channels = _turn_upright(channels, orientation)
    gray = mode in ("L", "LA") or mode.startswith("I;16")
    colour = np.repeat(channels[..., :1], 3, axis=2) if gray else np.ascontiguousarray(channels[..., :3])
    alpha = channels[..., -1] if mode.endswith("A") else None
    file_format = "JPEG" if file.format == "MPO" else file.format
    return Photograph(colour, file_format, alpha, gray, orientation, metadata, tags)


def _decode(path: Path, file: Image.Image, mode: str, orientation: int) -> np.ndarray:
    """The channels as they are stored, H x W x C."""
    encoded = path.read_bytes()
    if file.format == "TIFF" and orientation != 1:
        encoded = without_orientation(encoded)  # both libraries turn some kinds of TIFF themselves, and others not
        file = Image.open(io.BytesIO(encoded), formats=FORMATS)
    if _bit_depth(path, file) == 16:
        channels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
        if channels is None or channels.dtype != np.uint16:
            raise UserError(f"{path}: this kind of 16-bit {file.format} cannot be decoded; save it uncompressed")
        channels = channels if channels.ndim == 2 else channels[..., [2, 1, 0, 3][: channels.shape[2]]]
    else:
        channels = np.asarray(file if file.mode == mode else file.convert(mode))
    return channels[..., None] if channels.ndim == 2 else channels


def _bit_depth(path: Path, file: Image.Image) -> int:
    """Of the file; Pillow's mode does not tell it for colour."""
    if file.format == "PNG":
        with path.open("rb") as header:
            return header.read(25)[24]
    return max(file.tag_v2.get(258, (1,))) if file.format == "TIFF" else 8


def _turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    turned = pixels.swapaxes(0, 1) if orientation >= 5 else pixels
    return np.flip(turned, FLIPPED_AXES.get(orientation, ()))


def _turn_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    turned = np.flip(pixels, FLIPPED_AXES.get(orientation, ()))
    return turned.swapaxes(0, 1) if orientation >= 5 else turned
