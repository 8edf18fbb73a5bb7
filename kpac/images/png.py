"""Reads and writes PNG through libpng (imagecodecs); copies the metadata chunks unchanged.

libpng gets only the chunks of the pixels: it would refuse or drop large texts and unusual profiles. The other chunks
are copied if, by the specification, they stay valid when the pixels change (PNG, third edition, 5.4 and 11.3).
"""

import logging
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np

from kpac.errors import UserError
from kpac.images.directories import ORIENTATION, Tags, exif_block, read_exif
from kpac.images.header import ImageHeader
from kpac.images.photograph import Metadata, Photograph

logging.getLogger("imagecodecs").setLevel(logging.CRITICAL)  # libpng's warnings; errors are raised

SIGNATURE = b"\x89PNG\r\n\x1a\n"
IHDR_END = 33  # the signature, then the header's length, name, 13 bytes and checksum
PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
COLOURS = {b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"mDCV", b"cLLI", b"mDCv", b"cLLi"}  # how to show the colors
OF_THE_OLD_FILE = {b"tIME", b"sBIT", b"hIST", b"sPLT"}  # date, and how the pixels were stored
ANIMATION = {b"acTL", b"fcTL", b"fdAT"}
XMP = b"XML:com.adobe.xmp\0"
RAW_EXIF = b"Raw profile type exif\0"
METRE = 0.0254  # an inch in metres
LARGEST_PROFILE = 1 << 24  # bytes; more is damage
SPEED = {"level": 1, "strategy": 3, "filter": 16}  # imagecodecs' fast settings: 0.3 s for 16 bits at 1680x1120

Chunk = tuple[bytes, bytes]  # name and content


def read_header(path: Path) -> ImageHeader:
    """Reads the file's header, and its chunks up to the pixels."""
    with path.open("rb") as file:
        if file.read(8) != SIGNATURE:
            raise ValueError("no PNG signature")
        facts, alpha = None, False
        while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
            length = struct.unpack(">I", head[:4])[0]
            if head[4:] == b"IHDR":
                facts = struct.unpack(">IIBB", file.read(10))
                length -= 10
            alpha = alpha or head[4:] == b"tRNS"
            file.seek(length + 4, 1)
    if facts is None:
        raise ValueError("no IHDR chunk")
    width, height, depth, colour = facts
    return ImageHeader(width, height, depth, gray=colour in (0, 4), alpha=alpha or colour in (4, 6))


def read(path: Path) -> Photograph:
    """Reads a PNG of any color type and bit depth.

    Raises:
        UserError: the file is an animation, or has a critical chunk that is not in the PNG specification.
    """
    pixels, beside = _split(path.read_bytes())
    unknown = next((name.decode("latin-1") for name, _ in beside if name[:1].isupper()), None)
    if unknown:
        raise UserError(
            f"{path}: PNG with the critical chunk {unknown}, which no reader may ignore; save it as plain PNG"
        )
    frames = next((content for name, content in beside if name == b"acTL" and len(content) == 8), bytes(8))
    if (count := struct.unpack(">I", frames[:4])[0]) > 1:
        raise UserError(f"{path}: is an animation of {count} images; expected one image")
    channels = imagecodecs.png_decode(pixels)
    tags = _exif(beside)
    kept = [(name, content) for name, content in beside if _stays_true(name)]
    left = sorted({name for name, _ in beside if not _stays_true(name)} - OF_THE_OLD_FILE - ANIMATION)
    metadata = Metadata(tags, _profile(kept), _xmp(kept), _dpi(kept), own=kept)
    behind = tuple(f"PNG chunk {name.decode('latin-1')}" for name in left)
    return Photograph.from_channels(channels, "PNG", tags.number(ORIENTATION, 1), metadata, behind)


def encode(channels: np.ndarray, metadata: Metadata) -> tuple[bytes, list[str]]:
    """Encodes a PNG file; also returns what was left out.

    Args:
        channels: H x W x C, uint8 or uint16, 1 <= C <= 4.
        metadata: `own` holds chunks to copy unchanged, or is None.
    """
    image = channels[..., 0] if channels.shape[2] == 1 else channels
    encoded = bytes(imagecodecs.png_encode(image, **SPEED))
    chunks = metadata.own if metadata.own is not None else _from_other_formats(metadata)
    return encoded[:IHDR_END] + b"".join(_encode(*chunk) for chunk in chunks) + encoded[IHDR_END:], []


def _split(encoded: bytes) -> tuple[bytes, list[Chunk]]:
    """Splits a PNG into a PNG of its pixels only and the other chunks; skips damaged ancillary chunks."""
    content, at = memoryview(encoded), len(SIGNATURE)
    pixels: list[bytes | memoryview] = [SIGNATURE]
    beside = []
    while at + 12 <= len(encoded):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        name = bytes(content[at + 4 : at + 8])
        if end + 4 > len(encoded):
            break
        if zlib.crc32(content[at + 4 : end]).to_bytes(4, "big") == content[end : end + 4]:
            if name in PIXELS:
                pixels.append(content[at : end + 4])  # copied only once, when all are joined
            else:
                beside.append((name, bytes(content[at + 8 : end])))
        elif name[:1].isupper():
            raise ValueError(f"chunk {name.decode('latin-1')}: wrong checksum")
        if name == b"IEND":
            return b"".join(pixels), beside
        at = end + 4
    raise ValueError("no IEND chunk")


def _stays_true(name: bytes) -> bool:
    """Whether a chunk stays valid when the pixels change: known color chunks, and those with the safe-to-copy bit."""
    if name in ANIMATION or name in OF_THE_OLD_FILE:
        return False
    return name in COLOURS or (name[:1].islower() and name[3:4].islower())


def of_png(chunks: list[Chunk]) -> list[str]:
    """Names the chunks that no other format can carry: all but EXIF, XMP, ICC profile, resolution and sRGB."""
    names = (name for name, content in chunks if not content.startswith((XMP, RAW_EXIF)))
    return [f"PNG chunk {name.decode('latin-1')}" for name in sorted({*names} - {b"eXIf", b"iCCP", b"pHYs", b"sRGB"})]


def _exif(chunks: list[Chunk]) -> Tags:
    for name, content in chunks:
        if name == b"eXIf":
            return read_exif(content.removeprefix(b"Exif\0\0"))
        if name == b"zTXt" and content.startswith(RAW_EXIF):  # written by ImageMagick before eXIf existed
            words = (_inflate(content[len(RAW_EXIF) + 1 :]) or b"").split()
            try:
                return read_exif(bytes.fromhex(b"".join(words[2:]).decode("ascii")).removeprefix(b"Exif\0\0"))
            except ValueError:
                continue
    return Tags()


def _profile(chunks: list[Chunk]) -> bytes | None:
    content = next((content for name, content in chunks if name == b"iCCP"), b"")
    return _inflate(content.partition(b"\0")[2][1:])


def _xmp(chunks: list[Chunk]) -> bytes | None:
    for name, content in chunks:
        if name == b"iTXt" and content.startswith(XMP):
            compressed, text = content[len(XMP)], content[len(XMP) + 2 :]
            text = text.partition(b"\0")[2].partition(b"\0")[2]
            return _inflate(text) if compressed else text
    return None


def _inflate(compressed: bytes) -> bytes | None:
    """Decompresses a profile or EXIF text; None if the result is empty, damaged or larger than any profile."""
    decoder = zlib.decompressobj()
    try:
        content = decoder.decompress(compressed, LARGEST_PROFILE)
    except zlib.error:
        return None
    return content if content and decoder.eof else None


def _dpi(chunks: list[Chunk]) -> tuple[float, float] | None:
    content = next((content for name, content in chunks if name == b"pHYs" and len(content) == 9), None)
    if content is None:
        return None
    across, down, unit = struct.unpack(">IIB", content)
    return (across * METRE, down * METRE) if unit == 1 else None


def _from_other_formats(metadata: Metadata) -> list[Chunk]:
    chunks = []
    if metadata.icc_profile:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc_profile)))
    if metadata.dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(value / METRE) for value in metadata.dpi), 1)))
    if block := exif_block(metadata.tags):
        chunks.append((b"eXIf", block))
    if metadata.xmp:
        chunks.append((b"iTXt", XMP + b"\0\0\0\0" + metadata.xmp))
    return chunks


def _encode(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
