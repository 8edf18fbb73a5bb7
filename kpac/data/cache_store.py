"""How a decoded image is named in the cache, and how large it will be."""

import hashlib
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from typing_extensions import Self

from kpac.errors import UserError
from kpac.images import READER_VERSION, read_header

HEADER = 128  # bytes that numpy writes before the pixels of a H x W x 3 array


@dataclass(frozen=True)
class StoredName:
    """Name of a decoded image: which source, in which state.

    Args:
        source: tells the source's path, links resolved, and begins with what is plain of its stem, for human readers.
        state: tells the version of the reader, the source's size and its modification time.
    """

    source: str
    state: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """The name for a source as it is now.

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
        """The name of a file in the cache; None for other files."""
        found = re.fullmatch(r"([^.].*-[0-9a-f]{16})-((?:r\d+-)?[0-9a-f]+-[0-9a-f]{16})\.npy", text, re.DOTALL)
        return cls(*found.groups()) if found else None

    def __str__(self) -> str:
        return f"{self.source}-{self.state}.npy"


@lru_cache(maxsize=65536)
def _source(absolute: Path) -> str:
    path = absolute.resolve()
    # The hash alone tells the source. A name has at most 255 bytes; a source's need not be UTF-8, PyTorch wants that.
    stem = re.sub(r"[^\w .-]", "_", path.stem[:40]).lstrip(".")
    return f"{stem}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"


def decoded_bytes(path: Path) -> int:
    """Bytes of an image's .npy file, from its header alone; 0 when that cannot be read."""
    header = read_header(path)
    if header is None:
        return 0
    return HEADER + header.decoded_bytes
