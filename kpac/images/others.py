"""Reads and writes WebP and BMP through Pillow."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.WebPImagePlugin import WebPImageFile

from kpac.errors import UserError
from kpac.images.directories import ORIENTATION, exif_block, read_exif
from kpac.images.header import ImageHeader
from kpac.images.photograph import Metadata, Photograph

BYTES_A_PIXEL = 24  # upper bound for reading: Pillow and libwebp hold copies of four channels; 22 measured

# Pillow's plugins, called directly: Image.open limits the number of pixels.
PLUGINS = {"WEBP": WebPImageFile, "BMP": BmpImageFile}
MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBX": "RGB", "RGBA": "RGBA"}  # file's mode -> mode to read


def read_header(path: Path, file_format: str) -> ImageHeader:
    """Reads the file's header."""
    with PLUGINS[file_format](path) as file:
        mode = _mode(path, file)
        width, height = file.size
        return ImageHeader(width, height, bit_depth=8, gray=mode == "L", alpha=mode == "RGBA")


def read(path: Path, file_format: str) -> Photograph:
    """Reads a WebP or BMP file.

    Raises:
        UserError: the file is an animation.
    """
    encoded = path.read_bytes()
    with PLUGINS[file_format](io.BytesIO(encoded)) as file:
        frames = getattr(file, "n_frames", 1)
        if frames > 1:
            raise UserError(f"{path}: is an animation of {frames} images; expected one image")
        mode = _mode(path, file)
        channels = np.asarray(file if file.mode == mode else file.convert(mode))
        info = file.info
    tags = read_exif(info.get("exif", b"").removeprefix(b"Exif\0\0"))
    lossless = b"VP8L" in encoded[12:64] if file_format == "WEBP" else None
    metadata = Metadata(tags, info.get("icc_profile"), info.get("xmp"), info.get("dpi"), own=lossless)
    return Photograph.from_channels(channels, file_format, tags.number(ORIENTATION, 1), metadata)


def encode_webp(channels: np.ndarray, metadata: Metadata, quality: int) -> tuple[bytes, list[str]]:
    """Encodes a WebP file, lossless if the original was; also returns what was left out.

    Args:
        channels: H x W x C, uint8; gray is stored as color.
        metadata: `own` is whether to write it lossless.
        quality: 1 to 100.
    """
    colour = np.repeat(channels[..., :1], 3, axis=2) if channels.shape[2] < 3 else channels[..., :3]
    pixels = np.dstack([colour, channels[..., -1]]) if channels.shape[2] in (2, 4) else colour
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        stream,
        "WEBP",
        quality=quality,
        lossless=bool(metadata.own),
        exact=True,
        exif=exif_block(metadata.tags),
        icc_profile=metadata.icc_profile or b"",
        xmp=metadata.xmp or b"",
    )
    return stream.getvalue(), []


def encode_bmp(channels: np.ndarray, metadata: Metadata) -> tuple[bytes, list[str]]:
    """Encodes a BMP file, which stores only pixels and resolution; also returns what was left out.

    Args:
        channels: H x W x 1 or 3, uint8.
        metadata: metadata of the photograph.
    """
    stream = io.BytesIO()
    image = Image.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels)
    image.save(stream, "BMP", **({"dpi": metadata.dpi} if metadata.dpi else {}))
    said = {"EXIF": exif_block(metadata.tags), "an ICC profile": metadata.icc_profile, "XMP": metadata.xmp}
    return stream.getvalue(), [f"{name} (BMP has no room for it)" for name, content in said.items() if content]


def _mode(path: Path, file: Image.Image) -> str:
    if file.mode not in MODES:
        raise UserError(f"{path}: expected RGB or gray of 8 or 16 bits, found {file.mode}; convert it to RGB first")
    mode = MODES[file.mode]
    return "RGBA" if file.mode == "P" and "transparency" in file.info else mode
