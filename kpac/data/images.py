"""Read and write images at their own bit depth.

In memory an image is float32 RGB in [0, 1], H x W x 3. 16-bit files never pass through 8 bits, unless the caller asks
for the 8-bit reading that the field's evaluation scripts do.
"""

import logging
import zlib
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from kpac.data.headers import read_header
from kpac.errors import UserError
from kpac.files import whole_file

# Damaged files are reported by our own message. Set here and not by an environment variable, which counts for the
# first import of OpenCV in a process alone.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
# Its thread pool would hang the workers that a data loader forks; files are read in parallel anyway.
cv2.setNumThreads(0)
log = logging.getLogger(__name__)

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
BitDepth = Literal[8, 16]


def read_pixels(path: str | Path, bit_depth: BitDepth | None = None) -> np.ndarray:
    """Decodes a file into RGB integers, exactly.

    Gray images become three equal channels, the EXIF orientation of photographs is applied. Alpha is dropped, which is
    said once a folder.

    Args:
        path: a PNG, TIFF or JPEG file.
        bit_depth: None keeps the file's own. 8 reads a 16-bit file the way OpenCV's default does, which is what the
            8-bit evaluations of the field see. 16 spreads 8-bit values over the range (times 257).

    Returns:
        H x W x 3, uint8 or uint16.

    Raises:
        UserError: the file is missing, empty, cut short, damaged, or holds no 8- or 16-bit image.
    """
    path = Path(path)
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    flags = cv2.IMREAD_COLOR if bit_depth == 8 else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags) if _is_whole(encoded) else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise UserError(f"{path}: not a whole image file ({len(encoded):,} bytes); expected PNG, TIFF or JPEG")
    header = read_header(path)
    if header and header.alpha:
        _say_alpha_is_dropped(path.parent)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{path}: expected 8 or 16 bits a channel, found {pixels.dtype}")
    return at_depth(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), path, bit_depth)


def at_depth(pixels: np.ndarray, path: str | Path, bit_depth: BitDepth | None) -> np.ndarray:
    """Decoded pixels of a file as `read_pixels` gives them at another bit depth, to the bit.

    OpenCV keeps the upper half of a PNG's 16 bits, and rounds those of a TIFF.

    Shape: H x W x 3 -> H x W x 3.
    """
    if bit_depth == 8 and pixels.dtype == np.uint16:
        if Path(path).suffix.lower() == ".png":
            return (pixels >> 8).astype(np.uint8)
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if bit_depth == 16 and pixels.dtype == np.uint8:
        return pixels.astype(np.uint16) * 257
    return pixels


def _is_whole(encoded: bytes) -> bool:
    """Whether a JPEG has its end and a PNG its end and its checksums; other formats fail by themselves.

    Without its end, OpenCV 4 makes up gray pixels for a JPEG. A damaged PNG fails by itself, too, but its decoder then
    writes to the terminal.
    """
    if encoded[:8] == b"\x89PNG\r\n\x1a\n":
        return _is_whole_png(encoded)
    if encoded[:2] != b"\xff\xd8":
        return len(encoded) > 0
    at = 2
    while encoded[at : at + 1] == b"\xff" and encoded[at + 1 : at + 2] != b"\xda":  # segments up to the pixels
        at += 1 if encoded[at + 1 : at + 2] == b"\xff" else 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
    return encoded.find(b"\xff\xd9", at) >= 0


def _is_whole_png(encoded: bytes) -> bool:
    content, at = memoryview(encoded), 8
    while at + 12 <= len(encoded):  # a chunk: length, name, data, checksum of name and data
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        name, checksum = bytes(content[at + 4 : at + 8]), content[end : end + 4]
        needed = name[:1].isupper()  # decoders pass over the others when they are damaged
        if needed and zlib.crc32(content[at + 4 : end]).to_bytes(4, "big") != checksum:
            return False
        if name == b"IEND":
            return True
        at = end + 4
    return False


@cache
def _say_alpha_is_dropped(folder: Path) -> None:
    log.warning("%s: images with an alpha channel, which is dropped", folder)


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
        partial.write_bytes(encoded)  # whose error names its reason; that of numpy's `tofile` does not


def list_images(folder: str | Path) -> list[Path]:
    """The image files of a folder, sorted by name; an absent folder has none."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
