"""Reads photographs; all parts of the package use this module, so that a file always gives the same array."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from kpac.errors import UserError
from kpac.images import heif, jpeg, others, png, tiff
from kpac.images.depth import BitDepth, at_bit_depth
from kpac.images.header import ImageHeader
from kpac.images.kinds import format_of
from kpac.images.photograph import Photograph
from kpac.memory import available_bytes
from kpac.text import bytes_text

log = logging.getLogger(__name__)

# Increase this number when a file may decode to other pixels than before; caches of other versions are not used.
READER_VERSION = 2


def read_photograph(path: str | Path) -> Photograph:
    """Reads a photograph with its metadata.

    docs/photographs.md lists the supported files, and says how their pixels are converted.

    Raises:
        UserError: the file is missing, damaged, of an unsupported kind, or too large for the memory.
    """
    path = Path(path)
    file_format = format_of(path)
    with _explained(path):
        _require_memory(path, file_format)
        if file_format in others.PLUGINS:
            return others.read(path, file_format)
        return {"PNG": png, "TIFF": tiff, "JPEG": jpeg, "HEIF": heif}[file_format].read(path)


def read_pixels(path: str | Path, bit_depth: BitDepth | None = None) -> np.ndarray:
    """Reads the pixels of a photograph, upright.

    Gray images become three equal channels. Alpha is dropped, which is logged once per folder.

    Args:
        path: a file of any format in `kpac.images.SUFFIXES`.
        bit_depth: None keeps the file's own; for 8 and 16 see `at_depth`.

    Returns:
        H x W x 3, uint8 or uint16.

    Raises:
        UserError: see `read_photograph`.
    """
    photograph = read_photograph(path)
    if photograph.alpha is not None:
        _say_alpha_is_dropped(Path(path).parent)
    return at_bit_depth(photograph.pixels, photograph.format, bit_depth)


def at_depth(pixels: np.ndarray, path: str | Path, bit_depth: BitDepth | None) -> np.ndarray:
    """Converts a file's decoded pixels to another bit depth, bit-identical to `read_pixels`; see `at_bit_depth`.

    Shape: H x W x 3 -> H x W x 3.
    """
    if bit_depth == 8 and pixels.dtype == np.uint16:
        return at_bit_depth(pixels, format_of(Path(path)), bit_depth)
    return at_bit_depth(pixels, "", bit_depth)


def read_header(path: str | Path) -> ImageHeader | None:
    """Reads a file's header; None if it cannot be read or is not a photograph's."""
    path = Path(path)
    try:
        file_format = format_of(path)
        with _explained(path):
            return _header(path, file_format)
    except UserError:
        return None


def _header(path: Path, file_format: str) -> ImageHeader:
    if file_format in others.PLUGINS:
        return others.read_header(path, file_format)
    return {"PNG": png, "TIFF": tiff, "JPEG": jpeg, "HEIF": heif}[file_format].read_header(path)


def _require_memory(path: Path, file_format: str) -> None:
    """Raises a UserError if the photograph, according to its header, does not fit in memory."""
    header, free = _header(path, file_format), available_bytes()
    need = header.memory_bytes
    if file_format in others.PLUGINS:
        need = others.BYTES_A_PIXEL * header.width * header.height
    if need > free:
        raise UserError(
            f"{path}: is {header.width}x{header.height}; reading it takes {bytes_text(need)} of memory, "
            f"{bytes_text(free)} is free. Close other programs, or cut the photograph into parts"
        )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns the decoders' exceptions for damaged files, which may be of any class, into a one-line UserError."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{path}: out of memory; close other programs, or cut the photograph into parts") from None
    except Exception as error:
        reason = " ".join(f"{error or type(error).__name__}".split())[:200]
        raise UserError(f"{path}: not a whole image file ({reason})") from None


@cache
def _say_alpha_is_dropped(folder: Path) -> None:
    log.warning("%s: images with an alpha channel, which is dropped", folder)
