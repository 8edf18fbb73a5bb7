"""File names and sizes of decoded images in the cache."""

import hashlib
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from typing_extensions import Self

from kpac.errors import UserError
from kpac.images import READER_VERSION, read_header

HEADER = 128  # bytes of numpy's header before the pixels of an H x W x 3 array


@dataclass(frozen=True)
class StoredName:
    """Name of a decoded image in the cache; identifies the source and its version."""

    source: str  # identifies the source's path, links resolved; begins with the plain characters of its stem
    state: str  # identifies the version of the reader, the source's size and its modification time

    @classmethod
    def of(cls, path: Path) -> Self:
        """The name for the current version of a source.

        Raises:
            UserError: there is no such file.
        """
        try:
            facts = path.stat()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        return cls(
            _source(path.absolute()), f"r{READER_VERSION}-{facts.st_size:x}-{facts.st_mtime_ns & (1 << 64) - 1:016x}"
        )

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parses the name of a file in the cache; None for other files."""
        found = re.fullmatch(r"([^.].*-[0-9a-f]{16})-((?:r\d+-)?[0-9a-f]+-[0-9a-f]{16})\.npy", text, re.DOTALL)
        return cls(*found.groups()) if found else None

    def __str__(self) -> str:
        return f"{self.source}-{self.state}.npy"


@lru_cache(maxsize=65536)
def _source(absolute: Path) -> str:
    path = absolute.resolve()
    # The hash alone identifies the source. The stem is shortened, since a name has at most 255 bytes, and reduced to
    # plain characters, since it need not be UTF-8 and PyTorch requires that.
    stem = re.sub(r"[^\w .-]", "_", path.stem[:40]).lstrip(".")
    return f"{stem}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"


def decoded_bytes(path: Path) -> int:
    """Size of an image's .npy file in bytes, computed from the image's header; 0 if the header cannot be read."""
    header = read_header(path)
    if header is None:
        return 0
    return HEADER + header.decoded_bytes
