"""Reads and writes HEIC, a format of phones, through libheif (pillow-heif, an extra of this package)."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from kpac.images.depth import full_range, unmultiplied
from kpac.images.directories import exif_block, read_exif
from kpac.images.header import ImageHeader
from kpac.images.photograph import Metadata, Photograph

USUAL_COLOURS = {(1, 13), (1, 1), (1, 6), (2, 2), (None, None)}  # primaries and transfer of ITU-T H.273


def read_header(path: Path) -> ImageHeader:
    """Reads the header of the primary image."""
    image = _primary(path)[0]
    width, height = image.size
    return ImageHeader(
        width,
        height,
        bit_depth=image.info.get("bit_depth", 8),
        gray=image.mode.startswith(("L", "I")),
        alpha=image.mode.split(";")[0].endswith(("A", "a")),
    )


def read(path: Path) -> Photograph:
    """Reads the primary image, which libheif turns upright. Scales 10 and 12 bits to the full range of 16."""
    image, further = _primary(path)
    values = np.asarray(image)
    depth = image.info.get("bit_depth", 8)
    if values.dtype == np.uint16:  # libheif returns the values in the upper bits
        values = full_range(values >> (16 - depth), depth)
    if image.mode.split(";")[0].endswith("a"):
        values = unmultiplied(values)
    block = (image.info.get("exif") or b"").removeprefix(b"Exif\0\0")
    tags = read_exif(block)
    tags = tags.with_orientation(1) if tags.entries else tags
    behind = [f"{further} further image(s) of the HEIC file"] if further else []
    for key, name in (("depth_images", "depth map"), ("aux", "auxiliary images such as a gain map")):
        if image.info.get(key):
            behind.append(f"the HEIC file's {name}")
    metadata = Metadata(tags, image.info.get("icc_profile"), image.info.get("xmp"), own=image.info.get("nclx_profile"))
    return Photograph.from_channels(values, "HEIF", 1, metadata, tuple(behind))


def encode(channels: np.ndarray, metadata: Metadata, quality: int) -> tuple[bytes, list[str]]:
    """Encodes a HEIC file of 8 or 10 bits, without chroma subsampling; also returns what was left out.

    Args:
        channels: H x W x C, uint8 or uint16; gray is stored as color.
        metadata: `own` is libheif's description of the colors, or None.
        quality: 1 to 100.
    """
    import pillow_heif

    colour = np.repeat(channels[..., :1], 3, axis=2) if channels.shape[2] < 3 else channels[..., :3]
    alpha = channels.shape[2] in (2, 4)
    pixels = np.ascontiguousarray(np.dstack([colour, channels[..., -1]]) if alpha else colour)
    mode = ("RGBA" if alpha else "RGB") + (";16" if pixels.dtype == np.uint16 else "")
    file = pillow_heif.from_bytes(mode=mode, size=(pixels.shape[1], pixels.shape[0]), data=pixels.tobytes())
    if metadata.icc_profile:
        file[0].info["icc_profile"] = metadata.icc_profile
    if metadata.own:
        file[0].info["nclx_profile"] = metadata.own
    stream = io.BytesIO()
    said = {"exif": exif_block(metadata.tags) or None, "xmp": metadata.xmp}
    file.save(stream, quality=quality, chroma=444, **{key: value for key, value in said.items() if value})
    return stream.getvalue(), []


def of_heif(nclx: dict[str, Any]) -> list[str]:
    """Names the color description (nclx), which no other format can store; none if it is sRGB or missing."""
    found = nclx.get("color_primaries"), nclx.get("transfer_characteristics")
    return (
        [] if found in USUAL_COLOURS else [f"the HEIC file's colors (nclx: primaries {found[0]}, transfer {found[1]})"]
    )


def _primary(path: Path) -> tuple[Any, int]:
    """The primary image, and the number of other images."""
    import pillow_heif

    file = pillow_heif.open_heif(path, convert_hdr_to_8bit=False)
    index = next((index for index, image in enumerate(file) if image.info.get("primary")), 0)
    return file[index], len(file) - 1
