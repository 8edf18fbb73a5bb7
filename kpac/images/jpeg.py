"""Reads and writes JPEG through libjpeg-turbo (Pillow); copies the metadata segments unchanged."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from kpac.errors import UserError
from kpac.images.directories import ORIENTATION, exif_block, read_exif
from kpac.images.header import ImageHeader
from kpac.images.photograph import Metadata, Photograph

warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # about unusual tags, which are kept unchanged

APP0, APP1, APP2, APP14, COMMENT, START_OF_SCAN = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE, 0xDA
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of a frame's header
LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
EXIF, XMP, PROFILE, PICTURES = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0", b"MPF\0"
CONTAINERS = (b"GContainer", b"Container:Directory", b"hdrgm:")  # found in XMP packets that list further pictures
LONGEST = 65533  # bytes of a segment

Segment = tuple[int, bytes]  # marker and content


def read_header(path: Path) -> ImageHeader:
    """Reads the frame header."""
    segments, _ = _split(path.read_bytes())
    _, depth, height, width, components = _frame(segments)
    return ImageHeader(width, height, depth, gray=components == 1, alpha=False)


def read(path: Path) -> Photograph:
    """Reads a JPEG of 8 bits, gray or color; if a file has several pictures, the first one is the photograph.

    Raises:
        UserError: the file has 12 bits, is lossless, or is CMYK.
    """
    encoded = path.read_bytes()
    segments, rest = _split(encoded)
    marker, depth, _, _, components = _frame(segments)
    if marker in LOSSLESS or depth != 8:
        kind = "lossless JPEG" if marker in LOSSLESS else f"JPEG of {depth} bits"
        raise UserError(f"{path}: is {kind}, which is not read; expected 8 bits. Save it as PNG or TIFF")
    if components not in (1, 3):
        found = "CMYK" if components == 4 else f"{components} channels"
        raise UserError(f"{path}: expected RGB or gray of 8 or 16 bits, found {found}; convert it to RGB first")
    if encoded.find(b"\xff\xd9", rest) < 0:  # decoders would invent the missing lines
        raise ValueError("no end of image")
    with JpegImageFile(io.BytesIO(encoded)) as file:  # not Image.open, which limits the number of pixels
        channels = np.asarray(file)
        profile, dpi = file.info.get("icc_profile"), file.info.get("dpi")
    exif = next((content for marker, content in segments if marker == APP1 and content.startswith(EXIF)), b"")
    xmp = next((content for marker, content in segments if marker == APP1 and content.startswith(XMP)), None)
    tags = read_exif(exif.removeprefix(EXIF))
    several = any(marker == APP2 and content.startswith(PICTURES) for marker, content in segments)
    kept = [segment for segment in segments if _stays_true(*segment, several)]
    metadata = Metadata(tags, profile, xmp and xmp.removeprefix(XMP), dpi and (float(dpi[0]), float(dpi[1])), own=kept)
    behind = ("the JPEG's further pictures (preview, depth or gain map)",) if several else ()
    return Photograph.from_channels(channels, "JPEG", tags.number(ORIENTATION, 1), metadata, behind)


def encode(channels: np.ndarray, metadata: Metadata, quality: int) -> tuple[bytes, list[str]]:
    """Encodes a JPEG file without chroma subsampling; also returns what was left out.

    Args:
        channels: H x W x 1 or 3, uint8.
        metadata: `own` holds segments to copy unchanged, or is None.
        quality: 1 to 100.
    """
    stream = io.BytesIO()
    image = Image.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels)
    image.save(stream, "JPEG", quality=quality, subsampling=0, dpi=metadata.dpi or (0, 0))
    encoded = stream.getvalue()
    segments, left = (metadata.own, []) if metadata.own is not None else _from_other_formats(metadata)
    head = 4 + int.from_bytes(encoded[4:6], "big")  # end of Pillow's own APP0, which follows the file's first two bytes
    if any(marker == APP0 for marker, _ in segments):
        first, kept = b"", sorted(segments, key=lambda segment: segment[0] != APP0)
    else:
        first, kept = encoded[2:head], segments
    return encoded[:2] + first + b"".join(_encode(*segment) for segment in kept) + encoded[head:], left


def of_jpeg(segments: list[Segment]) -> list[str]:
    """Names the segments that no other format can carry: all but EXIF, XMP and the ICC profile."""
    own = {marker for marker, content in segments if marker != APP0 and not content.startswith((EXIF, XMP, PROFILE))}
    return ["the JPEG's comment" if marker == COMMENT else f"JPEG segment APP{marker - APP0}" for marker in sorted(own)]


def _split(encoded: bytes) -> tuple[list[Segment], int]:
    """The segments before the first scan, and the scan's offset."""
    segments: list[Any] = []
    at = 2
    while encoded[at : at + 1] == b"\xff" and at + 4 <= len(encoded):
        marker = encoded[at + 1]
        if marker == START_OF_SCAN:
            return segments, at
        if marker == 0xFF or marker in WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
        if end > len(encoded) or end < at + 4:
            break
        segments.append((marker, encoded[at + 4 : end]))
        at = end
    raise ValueError("no scan")


def _frame(segments: list[Segment]) -> tuple[int, int, int, int, int]:
    """Marker, bit depth, height, width and number of components of the frame."""
    for marker, content in segments:
        if marker in FRAMES and len(content) >= 6:
            height, width = (int.from_bytes(content[at : at + 2], "big") for at in (1, 3))
            return marker, content[0], height, width, content[5]
    raise ValueError("no frame")


def _stays_true(marker: int, content: bytes, several: bool) -> bool:
    """Whether a segment stays valid when the pixels change."""
    if marker == APP0:
        return content.startswith(b"JFIF\0")
    if marker == APP14 or (marker == APP2 and content.startswith(PICTURES)):  # the color transform; further pictures
        return False
    if several and content.startswith(XMP) and any(word in content for word in CONTAINERS):
        return False
    return APP1 <= marker <= 0xEF or marker == COMMENT


def _from_other_formats(metadata: Metadata) -> tuple[list[Segment], list[str]]:
    segments, left = [], []
    for name, prefix, content in (
        ("EXIF", EXIF, exif_block(metadata.tags)),
        ("XMP", XMP, metadata.xmp),
    ):
        if content and len(prefix + content) <= LONGEST:
            segments.append((APP1, prefix + content))
        elif content:
            left.append(f"{name} of {len(content):,} bytes, too large for JPEG")
    if metadata.icc_profile:
        room = LONGEST - len(PROFILE) - 2
        parts = [metadata.icc_profile[at : at + room] for at in range(0, len(metadata.icc_profile), room)]
        if len(parts) < 256:
            segments += [
                (APP2, PROFILE + bytes((number, len(parts))) + part) for number, part in enumerate(parts, start=1)
            ]
        else:
            left.append("an ICC profile that is too large for JPEG")
    return segments, left


def _encode(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content
