"""Files that Pillow cannot write: 16-bit PNG, and TIFF of 8 and 16 bits, with their metadata.

OpenCV encodes 16-bit PNG and tifffile writes TIFF. OpenCV's PNG gets its metadata as chunks (PNG specification, third
edition, 11.3), tifffile's TIFF its EXIF directories appended, since tifffile writes none.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import tifffile
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

TEXT_TAGS = {271: "Make", 272: "Model", 315: "Artist", 33432: "Copyright"}
DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
IHDR_END = 33  # PNG signature, then the header's length, name, 13 bytes and checksum


@dataclass(frozen=True)
class TiffTags:
    """What a TIFF says besides its pixels: text tags by number, orientation, resolution, EXIF and GPS directories."""

    texts: dict[int, str]
    orientation: int
    description: str | None
    software: str | None
    date: str | None
    resolution: tuple[float, float] | None
    resolution_unit: int
    directories: dict[int, dict[int, Any]]


def read_tiff_tags(file: Image.Image) -> TiffTags:
    """The tags of a TIFF that Pillow has opened."""
    tags, exif = file.tag_v2, file.getexif()
    resolution = (float(tags[282]), float(tags[283])) if 282 in tags and 283 in tags else None
    return TiffTags(
        texts={tag: tags[tag] for tag in TEXT_TAGS if tag in tags},
        orientation=tags.get(274, 1),
        description=tags.get(270),
        software=tags.get(305),
        date=tags.get(306),
        resolution=resolution,
        resolution_unit=tags.get(296, 2),
        directories={tag: dict(exif.get_ifd(tag)) for tag in DIRECTORIES if exif.get_ifd(tag)},
    )


def without_orientation(encoded: bytes) -> bytes:
    """A TIFF that says that its pixels are stored upright."""
    stream = io.BytesIO(encoded)
    with tifffile.TiffFile(stream, mode="r+") as file:
        file.pages.first.tags[274].overwrite(1)
        return stream.getvalue()


def write_png(path: Path, channels: np.ndarray, metadata: dict[str, Any]) -> None:
    """Writes 16-bit pixels with `exif`, `icc_profile` and `dpi` in Pillow's forms.

    Args:
        path: a .png file.
        channels: H x W x C uint16; C is 1, 2 (gray and alpha, stored as colour), 3 or 4.
        metadata: may lack each of the three.
    """
    if channels.shape[2] == 2:
        channels = channels[..., [0, 0, 0, 1]]
    order = [2, 1, 0, 3][: channels.shape[2]] if channels.shape[2] > 1 else [0]
    _, encoded = cv2.imencode(".png", channels[..., order])
    chunks = b""
    if profile := metadata.get("icc_profile"):
        chunks += _chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
    if dpi := metadata.get("dpi"):
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *(round(float(value) / 0.0254) for value in dpi), 1))
    if exif := metadata.get("exif"):
        chunks += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    data = encoded.tobytes()
    path.write_bytes(data[:IHDR_END] + chunks + data[IHDR_END:])


def write_tiff(path: Path, channels: np.ndarray, tags: TiffTags, icc_profile: bytes | None) -> None:
    """Writes 8- or 16-bit pixels, losslessly compressed, with what the original said.

    Args:
        path: a .tif file.
        channels: H x W x C; C is 1, 2 (gray and alpha), 3 or 4.
        tags: of the original.
        icc_profile: None for none.
    """
    count = channels.shape[2]
    alpha = count in (2, 4)
    extra = [(tag, 2, 0, text, True) for tag, text in tags.texts.items()]
    extra.append((274, 3, 1, tags.orientation, True))
    tifffile.imwrite(
        path,
        channels[..., 0] if count == 1 else channels,
        photometric="minisblack" if count < 3 else "rgb",
        planarconfig=None if count == 1 else "contig",
        extrasamples=["unassalpha"] if alpha else None,
        compression="zlib",
        predictor=True,
        metadata=None,
        description=tags.description,
        software=tags.software or False,
        datetime=tags.date,
        resolution=tags.resolution,
        resolutionunit=tags.resolution_unit if tags.resolution else None,
        iccprofile=icc_profile,
        extratags=extra,
        byteorder="<",
    )
    if tags.directories:
        _add_directories(path, tags.directories)


def _add_directories(path: Path, directories: dict[int, dict[int, Any]]) -> None:
    """Appends directories, and a copy of the first one that names them, to a little-endian TIFF of a single page."""
    with path.open("r+b") as file:
        file.seek(4)
        first = struct.unpack("<I", file.read(4))[0]
        file.seek(first)
        count = struct.unpack("<H", file.read(2))[0]
        entries = [file.read(12) for _ in range(count)]  # tag, type, number of values, value or its place
        for tag, values in directories.items():
            directory = ImageFileDirectory_v2(prefix=b"II", group=tag)
            for name, value in values.items():
                if name != ExifTags.IFD.Interop:  # points to one more directory, which stays behind
                    directory[name] = value
            place = _end_on_a_word(file)
            file.write(directory.tobytes(place))
            entries.append(struct.pack("<HHII", tag, 4, 1, place))
        place = _end_on_a_word(file)
        entries.sort(key=lambda entry: struct.unpack("<H", entry[:2]))
        file.write(struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0))
        file.seek(4)
        file.write(struct.pack("<I", place))


def _end_on_a_word(file: BinaryIO) -> int:
    """Goes to the end of a file, which becomes an even place: directories begin on a word."""
    end = file.seek(0, 2)
    return end + file.write(b"\0" * (end % 2))


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
