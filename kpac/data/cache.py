"""Cache of decoded images as memory-mapped arrays, so that a crop reads only its own pages and decodes no PNG."""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from tqdm import tqdm

from kpac.data.cache_store import StoredName, decoded_bytes
from kpac.errors import UserError
from kpac.files import atomic_write
from kpac.images import read_pixels
from kpac.locks import Held, take_lock
from kpac.text import bytes_text

BLOCK = 4096  # bytes; a file occupies whole disk blocks
UNUSABLE = (OSError, ValueError, EOFError)  # raised by numpy for a missing, truncated or empty file


def default_folder(root: Path) -> Path:
    """The default cache folder of a data set.

    It lies inside the data set. If that is read-only, it is `$XDG_CACHE_HOME/kpac/<hash of root>`; if the variable is
    unset, `~/.cache/kpac/<hash of root>`.

    Raises:
        UserError: the data set is read-only, and the user has no home folder.
    """
    inside = root / ".kpac-cache"
    if os.access(inside if inside.exists() else root, os.W_OK | os.X_OK):
        return inside
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        home = named if named.is_absolute() else Path.home() / ".cache"  # the XDG standard ignores relative paths
    except RuntimeError:  # no HOME, and no account for the user id, as in some containers
        raise UserError(
            f"{root}: cannot be written, and there is no home folder; set HOME, or data.cache", "cache"
        ) from None
    return home / "kpac" / hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]


class DecodedCache:
    """A cache folder with one .npy file per decoded image, at the image's own bit depth.

    A file's name is made from its source's path, size and modification time, so a source that changes is decoded again.
    Files are written atomically. Several processes can fill and read one folder at the same time; a lock lets one of
    them decode while the others wait. See docs/data_cache.md.

    Args:
        folder: the cache folder; created when needed.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def open(self, path: Path) -> np.ndarray:
        """Returns a decoded image, H x W x 3 integers, memory-mapped and read-only; decodes it on first use.

        Raises:
            UserError: the image cannot be read, or the folder cannot be written.
        """
        stored = self.stored(path)
        try:
            return _mapped(stored)
        except UNUSABLE:
            with self._lock():
                with suppress(*UNUSABLE):
                    return _mapped(stored)  # decoded meanwhile by the process that held the lock
                self._remove_stale([path])
                _store(read_pixels(path), stored)
            return _mapped(stored)

    def stored(self, path: Path) -> Path:
        """Path of the file that holds, or will hold, a decoded image.

        Raises:
            UserError: there is no such image.
        """
        return self.folder / str(StoredName.of(path))

    def missing(self, paths: Iterable[Path]) -> list[Path]:
        """The images that are not decoded yet, or have changed since; each once.

        Raises:
            UserError: there is no such image.
        """
        there = self._names()
        return [path for path in dict.fromkeys(paths) if self.stored(path).name not in there]

    def size(self, paths: Iterable[Path]) -> int:
        """Exact size of the decoded images in bytes, computed from their headers; an unreadable image counts as 0."""
        return sum(decoded_bytes(path) for path in dict.fromkeys(paths))

    def prepare(self, paths: Sequence[Path], keep_going: bool = False) -> list[Path]:
        """Decodes the images that are not in the cache yet, several at a time, with a progress bar.

        If another process is filling the same folder, waits for it, then decodes what is still missing. All readable
        images are decoded before an unreadable one is reported, so that no work is lost.

        Args:
            paths: images; may repeat.
            keep_going: returns the unreadable images instead of raising, for a caller that continues without them.

        Returns:
            The unreadable images; always empty without `keep_going`.

        Raises:
            UserError: an image cannot be read, the folder cannot be written, or its disk is too small.
        """
        if not self.missing(paths):
            return []
        with self._lock() as alone:
            if alone:
                self._remove_partial()
            missing = self.missing(paths)
            self._remove_stale(missing)
            if missing:
                self._check_space(missing)
            errors = self._decode(missing)
        if errors and not keep_going:
            first, *others = errors.values()
            more = f" ({len(others)} more cannot be read either; kpac data check DIR lists them)" if others else ""
            raise UserError(f"{first}{more}")
        return list(errors)

    def verify(self, paths: Iterable[Path]) -> list[Path]:
        """Decodes the sources again and compares every pixel with the cache.

        Finds changes that size and modification time do not show: a source replaced by one of the same date, and a
        damaged disk. Images that are not in the cache are skipped.

        Returns:
            The images whose stored pixels differ. To repair the cache, `forget` them and `prepare` again.

        Raises:
            UserError: an image cannot be read.
        """
        there = self._names()
        stored = [path for path in dict.fromkeys(paths) if self.stored(path).name in there]
        with _threads() as pool:
            same = list(_bar(pool.map(self._holds, stored), len(stored), f"verifying {self.folder}"))
        return [path for path, equal in zip(stored, same, strict=True) if not equal]

    def forget(self, paths: Iterable[Path]) -> None:
        """Removes the decoded images of these sources."""
        for path in paths:
            with suppress(FileNotFoundError):
                self.stored(path).unlink()
        _mapped.cache_clear()

    def _holds(self, path: Path) -> bool:
        try:
            return np.array_equal(np.load(self.stored(path), mmap_mode="r"), read_pixels(path))
        except UNUSABLE:
            return False

    def _decode(self, paths: list[Path]) -> dict[Path, str]:
        """Decodes and stores images; returns the error message of each that cannot be read."""

        def work(path: Path) -> str | None:
            stored = self.stored(path)  # before reading: a source that changes meanwhile is then decoded again
            try:
                pixels = read_pixels(path)
            except UserError as error:
                return str(error)
            _store(pixels, stored)
            return None

        with _threads() as pool:
            messages = _bar(pool.map(work, paths), len(paths), f"decoding into {self.folder}")
            return {path: message for path, message in zip(paths, messages, strict=True) if message}

    def _names(self) -> set[str]:
        try:
            return {file.name for file in self.folder.iterdir()}
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be read ({error.strerror}); set data.cache") from None

    def _remove_stale(self, paths: Iterable[Path]) -> None:
        """Removes cached images that were decoded from earlier versions of these sources."""
        current = {name.source: name for name in map(StoredName.of, paths)}
        for name in filter(None, map(StoredName.parse, self._names())):
            if name.source in current and name != current[name.source]:
                (self.folder / str(name)).unlink(missing_ok=True)

    def _remove_partial(self) -> None:
        """Removes partial files of killed processes. Requires the lock, so that no other process is writing."""
        for name in self._names():
            if name.startswith(".") and name.endswith(".partial.npy"):
                (self.folder / name).unlink(missing_ok=True)

    def _check_space(self, paths: Sequence[Path]) -> None:
        """Prints the size of the decoded images; raises a UserError if they do not fit on the disk."""
        need, free = self.size(paths), shutil.disk_usage(self.folder).free
        if need + BLOCK * len(paths) > free:
            raise UserError(
                f"{self.folder}: {len(paths)} decoded images need {bytes_text(need)}, the disk has {bytes_text(free)} "
                "free; set data.cache to a folder on a larger disk"
            )
        print(f"kpac: decoding {len(paths)} images into {self.folder}: {bytes_text(need)}", file=sys.stderr, flush=True)

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Context that holds the folder's write lock; the system releases the lock of a killed process.

        Yields False on file systems without locks (some clusters' Lustre). At worst, an image is decoded twice there.
        """
        path = self.folder / ".lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock = take_lock(path)
            except Held:
                print(f"kpac: another process is filling {self.folder}; waiting for it", file=sys.stderr, flush=True)
                lock = take_lock(path, wait=True)
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written ({error.strerror}); set data.cache to a writable folder"
            ) from None
        try:
            yield lock is not None
        finally:
            if lock:
                lock.release()


def _store(pixels: np.ndarray, stored: Path) -> None:
    with atomic_write(stored) as partial, partial.open("wb") as file:
        np.save(file, pixels)


@lru_cache(maxsize=30_000)  # Linux allows 65,530 maps per process
def _mapped(stored: Path) -> np.ndarray:
    """Maps a decoded image and keeps the map open, so that cutting a crop takes 0.05 ms instead of 0.4 ms.

    (docs/data_cache.md describes the measurement.) Uses torch's map, because each map of numpy holds a file descriptor,
    and a process may often open only 1,024.
    """
    with stored.open("rb") as file:
        npy.read_magic(file)
        shape, _, dtype = npy.read_array_header_1_0(file)
        start = file.tell()
    pixels = torch.from_file(str(stored), size=stored.stat().st_size, dtype=torch.uint8).numpy()
    image = pixels[start:].view(dtype).reshape(shape)
    image.flags.writeable = False
    return image


def _threads() -> ThreadPoolExecutor:
    """Thread pool for decoding, which releases Python's GIL.

    At most 16 threads: more would only wait for the disk and take memory.
    """
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1))


def _bar(work: Iterable, total: int, label: str) -> Iterable:
    return tqdm(work, total=total, desc=label, unit="image", disable=None)
