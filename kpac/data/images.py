"""Read and write images at their own bit depth.

In memory an image is float32 RGB in [0, 1], H x W x 3. 16-bit files never pass through 8 bits, unless the caller asks
for the 8-bit reading that the field's evaluation scripts do.
"""

import os
from pathlib import Path
from typing import Literal

os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # damaged files are reported by our own message

import cv2
import numpy as np

from kpac.errors import UserError
from kpac.files import whole_file

cv2.setNumThreads(
    0
)  # its thread pool would hang the workers that a data loader forks; files are read in parallel anyway

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
BitDepth = Literal[8, 16]


def read_pixels(path: str | Path, bit_depth: BitDepth | None = None) -> np.ndarray:
    """Decodes a file into RGB integers, exactly.

    Gray images become three equal channels, alpha is dropped, the EXIF orientation of photographs is applied.

    Args:
        path: a PNG, TIFF or JPEG file.
        bit_depth: None keeps the file's own. 8 reads a 16-bit file the way OpenCV's default does, which is what the
            8-bit evaluations of the field see. 16 spreads 8-bit values over the range (times 257).

    Returns:
        H x W x 3, uint8 or uint16.

    Raises:
        UserError: the file is missing, empty, damaged, or holds no 8- or 16-bit image.
    """
    path = Path(path)
    try:
        encoded = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    flags = cv2.IMREAD_COLOR if bit_depth == 8 else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    try:
        pixels = cv2.imdecode(encoded, flags) if encoded.size else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise UserError(f"{path}: not a whole image file ({encoded.size:,} bytes); expected PNG, TIFF or JPEG")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{path}: expected 8 or 16 bits a channel, found {pixels.dtype}")
    if bit_depth == 16 and pixels.dtype == np.uint8:
        pixels = pixels.astype(np.uint16) * 257
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def bits(pixels: np.ndarray) -> BitDepth:
    """Bit depth of integer pixels: 8 for uint8, 16 for uint16."""
    return 8 if pixels.dtype == np.uint8 else 16


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Integers to float32 in [0, 1]: v / 255 or v / 65535."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def from_float(image: np.ndarray, bit_depth: BitDepth) -> np.ndarray:
    """[0, 1] to integers, clamped and rounded to the nearest; the inverse of `to_float` on what it gave."""
    dtype = np.uint8 if bit_depth == 8 else np.uint16
    top = np.iinfo(dtype).max
    return np.rint(np.clip(image.astype(np.float64), 0, 1) * top).astype(dtype)


def write_pixels(path: str | Path, pixels: np.ndarray) -> None:
    """Writes H x W x 3 RGB integers; the format follows the suffix.

    The file appears whole or not at all.

    Raises:
        UserError: the folder cannot be written, or the suffix is of no known format.
    """
    path = Path(path)
    try:
        written, encoded = cv2.imencode(path.suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    except cv2.error:
        written = False
    if not written:
        raise UserError(f"{path}: cannot write this format; use one of {', '.join(SUFFIXES)}")
    with whole_file(path) as partial:
        encoded.tofile(partial)


def list_images(folder: str | Path) -> list[Path]:
    """The image files of a folder, sorted by name; an absent folder has none."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
