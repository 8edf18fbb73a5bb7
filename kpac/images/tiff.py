"""Reads and writes TIFF through tifffile and imagecodecs, with all layouts and compressions that they support.

Packed bits are scaled to the full range, white-is-zero is inverted, and premultiplied colors are divided by alpha.
Files whose meaning would have to be guessed are refused: other color spaces, several images, floats outside of [0, 1].
"""

import io
import logging
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np
import tifffile

from kpac.errors import UserError
from kpac.images.depth import ROWS, full_range, looked_up, unmultiplied
from kpac.images.directories import (
    DESCRIPTIVE,
    EXIF,
    GPS,
    ORIENTATION,
    POINTERS,
    Entry,
    Form,
    Tags,
    directories_bytes,
    read_directory,
    read_tags,
)
from kpac.images.header import ImageHeader
from kpac.images.kinds import raw_error
from kpac.images.photograph import Metadata, Photograph

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # we report damage ourselves

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, YCBCR: 3}  # number of color channels
NAMES = {5: "CMYK", 6: "YCbCr", 8: "CIE Lab", 9: "ICC Lab", 10: "ITU Lab", 32844: "LogL", 32845: "LogLuv"}
RAW_COLOURS = {32803, 34892}  # the mosaic of a sensor, and its linear values
DNG_VERSION = 50706
REDUCED, MASK, DEPTH = 1, 4, 8  # bits of NewSubfileType: an image that is not the photograph itself
JPEG, OLD_JPEG = 7, 6
ASSOCIATED = 1  # value of ExtraSamples: the colors are premultiplied by alpha
XMP, ICC_PROFILE, COLOUR_MAP = 700, 34675, 320
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, CENTIMETRE = 282, 283, 296, 3
MOST_IMAGES = 1000  # in one file; more is damage

# Tags on the storage of pixels, which the writer sets, and on the minimum and maximum of the old pixels.
OF_THE_PIXELS = frozenset(
    {*range(254, 260), *range(262, 267), 273, *range(277, 282), 284, *range(288, 294), 297, 317, *range(320, 326)}
    | {332, 333, 334, 336, *range(338, 343), 347, 400, *range(512, 522), *range(529, 533), *range(32995, 32999)}
    | {EXIF, GPS, 40965}
)
# Tags that point to other images, or hold them.
NOT_COPIED = {330: "further images inside the TIFF (SubIFDs)", 37724: "Photoshop's layers"}


@dataclass(frozen=True)
class Own:
    """Data that only a TIFF can carry: all its tags, and the type of float pixels ("float32"; None for integers)."""

    tags: Tags
    float_type: str | None


def read_header(path: Path) -> ImageHeader:
    """Reads the header from the photograph's directory."""
    with _photograph(path) as page:
        depth = int(np.max(page.bitspersample))  # one number, or one a channel
        gray = page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
        depth = 8 if page.photometric == PALETTE else depth
        alpha = page.samplesperpixel > COLOURS[int(page.photometric)]
        return ImageHeader(page.imagewidth, page.imagelength, depth, gray, alpha)


def read(path: Path) -> Photograph:
    """Reads a TIFF: gray, RGB or palette, of 1 to 16 bits or floats in [0, 1], with or without alpha.

    Raises:
        UserError: the file has several images, another color space or type of numbers, or is a raw file.
    """
    with _photograph(path) as page:
        _require_all_parts(page)
        channels = _channels(path, page)
        float_type = page.dtype.name if page.dtype and page.sampleformat == 3 else None
        file = page.parent.filehandle
        tags = read_tags(cast(BinaryIO, file), page.offset, Form(page.parent.byteorder, page.parent.is_bigtiff))
    kept = [entry for entry in tags.entries if entry.tag not in OF_THE_PIXELS]
    behind = {entry.tag for entry in kept if entry.tag in NOT_COPIED or entry.kind in POINTERS}
    own = Own(replace(tags, entries=tuple(entry for entry in kept if entry.tag not in behind)), float_type)
    left = tuple(NOT_COPIED.get(tag, f"TIFF tag {tag}, which points to another directory") for tag in sorted(behind))
    metadata = Metadata(
        Tags() if tags.form.big else tags.keep({*DESCRIPTIVE, ORIENTATION}),
        tags.value(ICC_PROFILE),
        tags.value(XMP),
        _dpi(tags),
        own=own,
    )
    return Photograph.from_channels(channels, "TIFF", tags.number(ORIENTATION, 1), metadata, left)


def encode(channels: np.ndarray, metadata: Metadata) -> tuple[bytes, list[str]]:
    """Encodes a TIFF file with lossless compression; also returns what was left out.

    Args:
        channels: H x W x C, uint8 or uint16; C is 1, 2 (gray and alpha), 3 or 4.
        metadata: `own` holds the tags of the original, or is None.
    """
    tags = metadata.own.tags if metadata.own else _from_other_formats(metadata)
    count, pixels = channels.shape[2], channels
    if metadata.own and metadata.own.float_type:
        pixels = (channels / np.float32(np.iinfo(channels.dtype).max)).astype(metadata.own.float_type)
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        pixels[..., 0] if count == 1 else pixels,
        photometric="minisblack" if count < 3 else "rgb",
        planarconfig=None if count == 1 else "contig",
        extrasamples=["unassalpha"] if count in (2, 4) else None,
        compression="zlib",
        predictor=pixels.dtype != np.float16,  # imagecodecs has no predictor for float16
        metadata=None,
        software=False,
        byteorder=cast(Literal["<", ">"], tags.form.order),
        bigtiff=tags.form.big,
    )
    _replace_directory(stream, tags)
    return stream.getvalue(), []


def of_tiff(own: Own) -> list[str]:
    """Names the tags that no other format can carry; for a BigTIFF all tags, since their offsets are too wide."""
    common = {*DESCRIPTIVE, ORIENTATION, XMP, ICC_PROFILE}
    numbers = sorted({entry.tag for entry in own.tags.entries} - (set() if own.tags.form.big else common))
    tags = [f"TIFF tag {number}" for number in numbers if number not in (XMP, ICC_PROFILE)]
    return tags + (["EXIF of a BigTIFF"] if own.tags.form.big and own.tags.directories else [])


@contextmanager
def _photograph(path: Path) -> Iterator[tifffile.TiffPage]:
    """Opens a file's photograph; checks that there is only one and that its kind is supported."""
    with tifffile.TiffFile(path) as file:
        if len(file.pages) > MOST_IMAGES:
            raise UserError(f"{path}: holds {len(file.pages):,} images; expected one")
        pages = cast(list[tifffile.TiffPage], list(file.pages))  # a TiffFrame is made only with `useframes`
        inside = cast(list[tifffile.TiffPage], [sub for page in pages if 330 in page.tags for sub in page.pages or ()])
        if any(page.photometric in RAW_COLOURS or DNG_VERSION in page.tags for page in [*pages, *inside]):
            raise raw_error(path)
        whole = [page for page in pages if not page.subfiletype & (REDUCED | MASK | DEPTH)]
        if not pages:
            raise ValueError("no image")
        if not whole:
            raise UserError(
                f"{path}: its images are reduced previews, as in a camera's RAW file; expected the photograph itself"
            )
        if len(whole) > 1:
            raise UserError(f"{path}: holds {len(whole)} images; expected one. Save each in a separate file")
        _require_known(path, whole[0])
        yield whole[0]


def _require_known(path: Path, page: tifffile.TiffPage) -> None:
    """Raises a UserError if the meaning of the pixels would have to be guessed; the message names the property."""
    colours = COLOURS.get(int(page.photometric))
    if colours is None or (page.photometric == YCBCR and (page.compression != JPEG or page.planarconfig != 1)):
        name = NAMES.get(int(page.photometric), f"photometric interpretation {int(page.photometric)}")
        raise UserError(f"{path}: expected RGB or gray of 8 or 16 bits, found {name}; convert it to RGB first")
    if page.compression == OLD_JPEG:
        raise UserError(f"{path}: has old-style JPEG compression, which is not supported; save it without")
    if page.imagedepth != 1:
        raise UserError(f"{path}: is a volume of {page.imagedepth} images; expected one")
    beside = page.samplesperpixel - colours
    if beside not in (0, 1) or (beside and page.photometric == PALETTE):
        raise UserError(
            f"{path}: has {page.samplesperpixel} channels; expected gray or RGB, with at most one more for alpha"
        )
    known = (
        isinstance(page.bitspersample, int)
        and page.dtype is not None
        and (1 <= page.bitspersample <= 16 if page.sampleformat in (1, 4) else page.sampleformat == 3)
    )
    if not known:
        kind = {2: "signed integers", 3: "floats"}.get(page.sampleformat, "integers")
        found = (
            page.bitspersample if isinstance(page.bitspersample, int) else " and ".join(map(str, page.bitspersample))
        )
        raise UserError(f"{path}: holds {kind} of {found} bits; expected 1 to 16 bits, or floats in [0, 1]")


def _require_all_parts(page: tifffile.TiffPage) -> None:
    """Raises an error if strips or tiles are missing; tifffile would return black there."""
    size, count = page.parent.filehandle.size, math.prod(page.chunked)
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    contiguous = page.is_contiguous and len(places) == 1
    if not contiguous and len(places) < count:
        raise ValueError(f"{len(places)} of {count} strips or tiles")
    for place, length in places:
        if not place or not length or place >= size or (page.compression != 1 and place + length > size):
            raise ValueError("strips or tiles are missing")


def _channels(path: Path, page: tifffile.TiffPage) -> np.ndarray:
    """Channels as H x W x C, uint8 or uint16, over the full range, black at 0, colors not premultiplied."""
    channels = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # planes, H, W, channels
    channels = np.moveaxis(channels, 0, 2).reshape(*channels.shape[1:3], -1)
    if channels.shape[:2] != (page.imagelength, page.imagewidth) or channels.shape[2] != page.samplesperpixel:
        raise ValueError(f"decoded to {channels.shape}")
    colours = COLOURS[int(page.photometric)]
    if page.photometric == PALETTE:
        return _through_palette(channels[..., 0], page)
    if page.sampleformat == 3:
        channels = _from_unit_range(path, channels)
    else:
        channels = full_range(channels.view(np.uint8) if channels.dtype == bool else channels, page.bitspersample)
    if page.photometric == WHITE_IS_ZERO:
        channels = channels.copy() if not channels.flags.writeable else channels
        np.invert(channels[..., 0], out=channels[..., 0])
    if channels.shape[2] > colours and page.extrasamples and page.extrasamples[0] == ASSOCIATED:
        channels = unmultiplied(channels)
    return channels


def _through_palette(indices: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Looks up 8-bit colors as libtiff does: the palette's upper bytes, unless the palette itself has 8 bits."""
    palette: np.ndarray = np.asarray(page.tags[COLOUR_MAP].value, np.uint16).reshape(3, -1)
    palette = palette >> 8 if palette.max() > 255 else palette
    return looked_up(indices, palette.astype(np.uint8).T)


def _from_unit_range(path: Path, values: np.ndarray) -> np.ndarray:
    """Converts floats in [0, 1] to 16 bits; tolerates rounding errors of half a step outside of the range."""
    pixels = np.empty(values.shape, np.uint16)
    for start in range(0, len(values), ROWS):
        with np.errstate(invalid="ignore"):
            steps = np.rint(values[start : start + ROWS].astype(np.float64) * 65535)
        if not ((steps >= 0) & (steps <= 65535)).all():  # also true for NaN
            known = values[~np.isnan(values)]
            low, high = (float(known.min()), float(known.max())) if known.size else (np.nan, np.nan)
            more = " and NaN" if known.size < values.size else ""
            raise UserError(
                f"{path}: holds floats from {low:g} to {high:g}{more}; expected values in [0, 1], since other "
                "ranges are not defined. Scale them first"
            )
        pixels[start : start + ROWS] = steps
    return pixels


def _dpi(tags: Tags) -> tuple[float, float] | None:
    unit = tags.number(RESOLUTION_UNIT, 2)
    values = [value for tag in (X_RESOLUTION, Y_RESOLUTION) if (value := tags.rational(tag)) and value[1]]
    if unit not in (2, CENTIMETRE) or len(values) < 2:
        return None
    scale = 2.54 if unit == CENTIMETRE else 1.0
    across, down = (value[0] / value[1] * scale for value in values)
    return across, down


def _from_other_formats(metadata: Metadata) -> Tags:
    tags = metadata.tags.keep({*DESCRIPTIVE, ORIENTATION})
    entries = list(tags.entries)
    if metadata.icc_profile:
        entries.append(Entry(ICC_PROFILE, 7, metadata.icc_profile))
    if metadata.xmp:
        entries.append(Entry(XMP, 1, metadata.xmp))
    if metadata.dpi and not tags.value(X_RESOLUTION):
        for tag, value in zip((X_RESOLUTION, Y_RESOLUTION), metadata.dpi, strict=True):
            entries.append(Entry(tag, 5, struct.pack(tags.form.order + "II", round(value * 1000), 1000)))
        entries.append(Entry(RESOLUTION_UNIT, 3, struct.pack(tags.form.order + "H", 2)))
    return replace(tags, entries=tuple(entries))


def _replace_directory(file: io.BytesIO, tags: Tags) -> None:
    """Appends a copy of tifffile's directory with our tags added, and makes it the file's first directory."""
    form = tags.form
    place = len(form.header)
    file.seek(place)
    written = read_directory(file, struct.unpack(form.offset, file.read(struct.calcsize(form.offset)))[0], form)
    of_the_pixels = [entry for tag, entry in written.items() if tag in OF_THE_PIXELS]
    end = file.seek(0, 2)
    end += file.write(b"\0" * (end % 2))  # directories begin at even offsets
    file.write(directories_bytes([*of_the_pixels, *tags.entries], tags.directories, end, form))
    file.seek(place)
    file.write(struct.pack(form.offset, end))
