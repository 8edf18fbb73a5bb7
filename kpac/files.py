"""Atomic file writes, JSON, folders and paths."""

import errno
import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from kpac.errors import UserError

CANNOT_FLUSH = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM)
LONGEST_NAME = 255  # bytes of a file's name, on most file systems
NAMED = ("Infinity", "-Infinity", "NaN")  # written as strings, since JSON has no such numbers

log = logging.getLogger(__name__)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Atomic write: yields a temporary path beside `path`, and moves it into place at the end.

    Readers see either the old file or the complete new one. If the body fails or is interrupted, the temporary file is
    removed and an existing file is kept.

    Args:
        path: the file to write; its folder is created if needed.

    Raises:
        UserError: the folder or the file cannot be written, or the disk is full.
    """
    path = Path(path)
    partial = _partial(path)
    try:
        make_folder(path.parent, path)
        yield partial
        with partial.open("rb") as file:
            flush(file.fileno(), path.parent)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        with suppress(OSError):
            partial.unlink()


def flush(descriptor: int, folder: Path) -> None:
    """Flushes a file, or a folder's entries, to disk (fsync), if the file system supports it.

    Args:
        descriptor: open descriptor of the file or folder.
        folder: the folder, or the folder of the file; logged once if its file system does not support fsync.

    Raises:
        OSError: the disk is full or broken.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_FLUSH:
            raise
        _say_once(f"{folder}: this file system does not support fsync; a power failure may lose the last files")


@cache
def _say_once(text: str) -> None:
    log.warning(text)


def _partial(path: Path) -> Path:
    """The temporary file to write before it is renamed to `path`; long names are shortened to 255 bytes."""
    ending = f".{os.getpid()}.partial{path.suffix}"
    if len(os.fsencode(f".{path.stem}{ending}")) <= LONGEST_NAME:
        return path.with_name(f".{path.stem}{ending}")
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    suffix = path.suffix if len(path.suffix) < 16 else ""
    return path.with_name(f".{digest}.{os.getpid()}.partial{suffix}")


def from_home(path: str | Path) -> Path:
    """Expands a leading "~" to the user's home, as shells do; returns the path unchanged if there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def make_folder(folder: str | Path, wanted: str | Path | None = None) -> None:
    """Creates a folder and its parents, if missing.

    Args:
        folder: the folder to create.
        wanted: the path that an error message names, such as the file to write there; by default the folder.

    Raises:
        UserError: a parent is a file, or the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        file = next(path for path in (folder, *folder.parents) if path.exists())
        raise UserError(
            f"{wanted or folder}: cannot be written, because {file} is a file, not a folder; name another folder, or "
            "move that file"
        ) from None
    except OSError as error:
        raise UserError(f"{wanted or folder}: cannot be written ({error.strerror})") from None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        UserError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def short_path(path: str | Path) -> str:
    """A path for messages: relative to the working directory if it lies inside."""
    path, working = Path(path), Path.cwd()
    return str(path.relative_to(working)) if path.is_absolute() and path.is_relative_to(working) else str(path)


def write_text(path: str | Path, text: str) -> None:
    """Writes text as UTF-8 atomically; see `atomic_write`."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes indented JSON atomically; see `atomic_write` and `dump_json`."""
    write_text(path, dump_json(value, indent=2) + "\n")


def append_json_line(path: Path, value: Any) -> None:
    """Appends a line to a JSON Lines file, which is created if needed; starts a new line after a truncated one.

    Raises:
        UserError: the file cannot be written.
    """
    line = dump_json(value) + "\n"
    try:
        make_folder(path.parent)
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, 2)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def read_json_lines(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file; none if it cannot be read. Damaged lines are skipped."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(json.loads(line.decode("utf-8", "surrogateescape"), object_hook=object_hook))
    return [entry for entry in found if isinstance(entry, dict)]


def dump_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON: NaN and infinities become the strings of `NAMED`, which `float` converts back."""
    return json.dumps(_named(value), indent=indent, ensure_ascii=False, default=str, allow_nan=False)


def _named(value: Any) -> Any:
    """The same value, with strings for NaN and infinities."""
    if isinstance(value, dict):
        return {key: _named(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_named(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return NAMED[2] if math.isnan(value) else NAMED[value < 0]
    return value
