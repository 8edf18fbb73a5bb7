"""Writes photographs and arrays to files; the suffix chooses the format."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kpac.errors import UserError
from kpac.files import atomic_write
from kpac.images import heif, jpeg, others, png, tiff
from kpac.images.depth import at_bit_depth
from kpac.images.kinds import SUFFIXES, format_for
from kpac.images.photograph import Metadata, Photograph, turned_upright

EIGHT_BITS = {"JPEG", "WEBP", "BMP"}
WITHOUT_ALPHA = {"JPEG", "BMP"}
# Format -> function that names the metadata that only files of this format can store.
OF_ONE_FORMAT: dict[str, Callable[[Any], list[str]]] = {
    "PNG": png.of_png,
    "TIFF": tiff.of_tiff,
    "JPEG": jpeg.of_jpeg,
    "HEIF": heif.of_heif,
}


def write_photograph(path: Path, photograph: Photograph, quality: int) -> tuple[str, ...]:
    """Writes a photograph atomically.

    Args:
        path: the suffix chooses the format; with an unknown suffix, the photograph's format is kept.
        photograph: the photograph to write.
        quality: quality of JPEG, WebP and HEIC, 1 to 100.

    Returns:
        Content that the file cannot hold, in words.

    Raises:
        UserError: the file cannot be written, or the image is too large for the format.
    """
    target = format_for(path.suffix) or photograph.format
    left = list(photograph.left_behind)
    if target != photograph.format:
        if photograph.format in OF_ONE_FORMAT and photograph.metadata.own:
            left += OF_ONE_FORMAT[photograph.format](photograph.metadata.own)
        upright = turned_upright(photograph)
        photograph = replace(upright, format=target, metadata=replace(upright.metadata, own=None))
    channels = photograph.stored
    if channels.dtype == np.uint16 and target in EIGHT_BITS:
        channels = at_bit_depth(channels, target, 8)
        left.append(f"the lower 8 of 16 bits ({target} has 8)")
    if channels.shape[2] in (2, 4) and target in WITHOUT_ALPHA:
        channels = np.ascontiguousarray(channels[..., :-1])
        left.append(f"alpha ({target} has none)")
    with atomic_write(path) as partial:
        try:
            encoded, more = _encode(channels, target, photograph.metadata, quality)
        except (ValueError, OSError, RuntimeError) as error:  # raised by the libraries for images that are too large
            raise UserError(f"{path}: cannot be written as {target} ({error})") from None
        partial.write_bytes(encoded)
    return (*left, *more)


def _encode(channels: np.ndarray, target: str, metadata: Metadata, quality: int) -> tuple[bytes, list[str]]:
    if target == "JPEG":
        return jpeg.encode(channels, metadata, quality)
    if target == "WEBP":
        return others.encode_webp(channels, metadata, quality)
    if target == "HEIF":
        return heif.encode(channels, metadata, quality)
    return {"PNG": png.encode, "TIFF": tiff.encode, "BMP": others.encode_bmp}[target](channels, metadata)


def write_pixels(path: str | Path, pixels: np.ndarray) -> None:
    """Writes H x W x 3 RGB integers atomically; the suffix chooses the format.

    Raises:
        UserError: the folder cannot be written, or the suffix is unknown.
    """
    path = Path(path)
    file_format = format_for(path.suffix)
    if file_format is None:
        raise UserError(f"{path}: cannot write this format; use one of {', '.join(SUFFIXES)}")
    write_photograph(path, Photograph(pixels, file_format), quality=95)
