"""Files that appear whole or not at all."""

import errno
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from kpac.errors import UserError

CANNOT_FLUSH = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM)
LONGEST_NAME = 255  # bytes of a file's name, on most file systems
NAMED = ("Infinity", "-Infinity", "NaN")  # as strings in our JSON, which has no such numbers

log = logging.getLogger(__name__)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to, and moves it into place at the end.

    A reader sees the old file or the new one, whole. When the body fails or is interrupted, nothing is left behind and
    an earlier file stays.

    Args:
        path: the file to make; its folder is made when needed.

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
    """Makes a file, or the entries of a folder, last through a power failure, where the file system can.

    Args:
        descriptor: of it, open.
        folder: it, or the one it is in, for a notice, once a folder, that the file system cannot.

    Raises:
        OSError: the disk is full or broken.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_FLUSH:
            raise
        _say_once(f"{folder}: this file system confirms no writes; a power failure may lose the last files")


@cache
def _say_once(text: str) -> None:
    log.warning(text)


def _partial(path: Path) -> Path:
    """The file to write to before it becomes `path`. A name has room for 255 bytes; a long one is shortened."""
    ending = f".{os.getpid()}.partial{path.suffix}"
    if len(os.fsencode(f".{path.stem}{ending}")) <= LONGEST_NAME:
        return path.with_name(f".{path.stem}{ending}")
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    suffix = path.suffix if len(path.suffix) < 16 else ""
    return path.with_name(f".{digest}.{os.getpid()}.partial{suffix}")


def from_home(path: str | Path) -> Path:
    """A path with a leading "~" replaced by the user's home, as shells do; unchanged where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def make_folder(folder: str | Path, wanted: str | Path | None = None) -> None:
    """Makes a folder, and those that it lies in, unless it is there.

    Args:
        folder: to make.
        wanted: what the message names, such as the file to write there; by default the folder.

    Raises:
        UserError: a file is in the way, or the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        file = next(path for path in (folder, *folder.parents) if path.exists())
        raise UserError(
            f"{wanted or folder}: cannot be written, because {file} is a file and no folder; name another folder, or "
            "move that file"
        ) from None
    except OSError as error:
        raise UserError(f"{wanted or folder}: cannot be written ({error.strerror})") from None


def short_path(path: str | Path) -> str:
    """A path as people read it: from the working directory on, where it lies inside."""
    path, here = Path(path), Path.cwd()
    return str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) else str(path)


def write_json(path: str | Path, value: Any) -> None:
    """Writes readable JSON, whole; see `whole_file` and `dump_json`."""
    with whole_file(path) as partial:
        partial.write_text(dump_json(value, indent=2) + "\n", encoding="utf-8")


def dump_json(value: Any, indent: int | None = None) -> str:
    """JSON that any parser takes: the numbers that it has not are the strings of `NAMED`.

    `float` reads them back.
    """
    return json.dumps(_named(value), indent=indent, ensure_ascii=False, default=str, allow_nan=False)


def _named(value: Any) -> Any:
    """The same with strings for the numbers that JSON has not."""
    if isinstance(value, dict):
        return {key: _named(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_named(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return NAMED[2] if math.isnan(value) else NAMED[value < 0]
    return value
