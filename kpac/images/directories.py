"""Reads and writes the tag directories of TIFF files and EXIF blocks (TIFF 6.0, section 2; EXIF 2.32, section 4.6).

Entries are kept as stored, with type, bytes and byte order, so that unknown tags are preserved too.
"""

import io
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO

ORIENTATION = 274
EXIF, GPS = 34665, 34853
INTEROPERABILITY = 40965
POINTERS = (13, 18)  # types of values that are offsets of directories
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes
LARGEST = 1 << 26  # bytes of one tag's values; more is damage
MOST = 4096  # entries of one directory; more is damage

# Tags that describe the photograph; the other tags of a TIFF's first directory describe how its pixels are stored.
DESCRIPTIVE = frozenset((270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432))


@dataclass(frozen=True)
class Form:
    """Byte order ("<" or ">") and width of the offsets of a file: 4 bytes, or 8 in a BigTIFF."""

    order: str = "<"
    big: bool = False

    @property
    def offset(self) -> str:
        return self.order + ("Q" if self.big else "I")

    @property
    def count(self) -> str:
        return self.order + ("Q" if self.big else "H")

    @property
    def entry(self) -> str:
        return self.order + ("HHQ8s" if self.big else "HHI4s")

    @property
    def room(self) -> int:
        """Number of bytes of values that fit inside an entry."""
        return 8 if self.big else 4

    @property
    def header(self) -> bytes:
        """The first bytes of a file, up to the offset of its first directory."""
        mark = b"II" if self.order == "<" else b"MM"
        return mark + (struct.pack(self.order + "HHH", 43, 8, 0) if self.big else struct.pack(self.order + "H", 42))


@dataclass(frozen=True)
class Entry:
    """One tag: its number, the type of its values, and their bytes."""

    tag: int
    kind: int
    values: bytes


@dataclass(frozen=True)
class Tags:
    """Tags of a file: the entries of its first directory, and its EXIF and GPS directories."""

    form: Form = Form()  # byte order and offset width of all entries
    entries: tuple[Entry, ...] = ()  # entries of the first directory, without pointers to other directories
    directories: dict[int, tuple[Entry, ...]] = field(default_factory=dict)  # tag of EXIF or GPS -> its entries

    def value(self, tag: int) -> bytes | None:
        """The bytes of a tag of the first directory."""
        return next((entry.values for entry in self.entries if entry.tag == tag), None)

    def number(self, tag: int, default: int) -> int:
        """The first value of a tag of type SHORT."""
        values = self.value(tag)
        return struct.unpack_from(self.form.order + "H", values)[0] if values and len(values) >= 2 else default

    def rational(self, tag: int) -> tuple[int, int] | None:
        """The first value of a tag of type RATIONAL, as numerator and denominator."""
        values = self.value(tag)
        return struct.unpack_from(self.form.order + "II", values) if values and len(values) >= 8 else None

    def keep(self, wanted: Iterable[int]) -> "Tags":
        """Returns a copy with only the wanted tags in the first directory."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry.tag in frozenset(wanted)))

    def with_orientation(self, orientation: int) -> "Tags":
        """Returns a copy with another orientation."""
        entry = Entry(ORIENTATION, 3, struct.pack(self.form.order + "H", orientation))
        return replace(self, entries=(*(entry for entry in self.entries if entry.tag != ORIENTATION), entry))


def read_directory(file: BinaryIO, place: int, form: Form) -> dict[int, Entry]:
    """Reads the entries of a directory; skips damaged ones.

    Args:
        file: the file with the directory and its values.
        place: offset of the directory.
    """
    file.seek(place)
    head = file.read(struct.calcsize(form.count))
    if len(head) < struct.calcsize(form.count):
        return {}
    count, size = struct.unpack(form.count, head)[0], struct.calcsize(form.entry)
    content = file.read(size * count) if count <= MOST else b""
    entries: dict[int, Entry] = {}
    for tag, kind, length, inline in struct.iter_unpack(form.entry, content[: len(content) // size * size]):
        needed = SIZES.get(kind, 0) * length
        if not 0 < needed <= LARGEST:
            continue
        values = inline[:needed]
        if needed > form.room:
            file.seek(struct.unpack(form.offset, inline)[0])
            values = file.read(needed)
        if len(values) == needed:
            entries.setdefault(tag, Entry(tag, kind, values))
    return entries


def read_tags(file: BinaryIO, place: int, form: Form) -> Tags:
    """Reads a directory, and the EXIF and GPS directories that it points to."""
    entries = read_directory(file, place, form)
    directories = {}
    for tag in (EXIF, GPS):
        pointer = entries.pop(tag, None)
        if pointer is not None and len(pointer.values) in (4, 8):
            place = struct.unpack(form.order + "IQ"[len(pointer.values) // 8], pointer.values)[0]
            inside = read_directory(file, place, form)
            inside.pop(INTEROPERABILITY, None)  # a pointer to one more directory
            kept = tuple(entry for entry in inside.values() if entry.kind not in POINTERS)
            if kept:
                directories[tag] = kept
    return Tags(form, tuple(entries.values()), directories)


def read_exif(block: bytes) -> Tags:
    """Reads the tags of an EXIF block, which is a TIFF without pixels; no tags if it is damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return Tags()
    form = Form(order)
    return read_tags(io.BytesIO(block), struct.unpack(form.offset, block[4:8])[0], form)


def exif_block(tags: Tags) -> bytes:
    """Writes tags as an EXIF block, the inverse of `read_exif`; b"" if there are none."""
    if not tags.entries and not tags.directories:
        return b""
    if tags.form.big:
        raise ValueError("an EXIF block has offsets of 4 bytes")
    start = len(tags.form.header) + 4
    body = directories_bytes(tags.entries, tags.directories, start, tags.form)
    return tags.form.header + struct.pack(tags.form.offset, start) + body


def directories_bytes(
    entries: Sequence[Entry], directories: dict[int, tuple[Entry, ...]], start: int, form: Form
) -> bytes:
    """Bytes of a first directory at offset `start`, followed by the directories that it points to."""
    pointers = [Entry(tag, 4, bytes(4)) for tag in directories]
    at = start + len(_directory_bytes([*entries, *pointers], start, form))
    pointers, behind = [], b""
    for tag, inside in directories.items():
        pointers.append(Entry(tag, 4, struct.pack(form.order + "I", at + len(behind))))
        behind += _directory_bytes(inside, at + len(behind), form)
    return _directory_bytes([*entries, *pointers], start, form) + behind


def _directory_bytes(entries: Sequence[Entry], start: int, form: Form) -> bytes:
    """Bytes of one directory and its values; an even number, with no link to a next directory."""
    ordered = sorted(entries, key=lambda entry: entry.tag)
    offset_size = struct.calcsize(form.offset)
    at = start + struct.calcsize(form.count) + struct.calcsize(form.entry) * len(ordered) + offset_size
    directory, values = struct.pack(form.count, len(ordered)), b""
    for entry in ordered:
        inline = entry.values.ljust(form.room, b"\0")
        if len(entry.values) > form.room:
            inline = struct.pack(form.offset, at + len(values))
            values += entry.values + b"\0" * (len(entry.values) % 2)
        directory += struct.pack(form.entry, entry.tag, entry.kind, len(entry.values) // SIZES[entry.kind], inline)
    content = directory + bytes(offset_size) + values
    return content + b"\0" * (len(content) % 2)
