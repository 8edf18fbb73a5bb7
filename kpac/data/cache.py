"""Decoded images as memory-mapped arrays: a crop reads its own pages of a file, not the whole PNG."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kpac.data.images import read_pixels
from kpac.errors import UserError
from kpac.files import whole_file


class DecodedCache:
    """A folder of .npy files, one a decoded image, at the image's own bit depth.

    A file's name holds its source's path, size and modification time, so a source that changes is decoded again. Files
    appear whole or not at all; several processes can fill and read one folder at the same time.

    Args:
        folder: made when needed.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def open(self, path: Path) -> np.ndarray:
        """The decoded image, H x W x 3 integers, memory-mapped and read-only; decodes it on first use."""
        stored = self._stored(path)
        if not stored.exists():
            self._store(path, stored)
        return np.load(stored, mmap_mode="r")

    def prepare(self, paths: Sequence[Path]) -> None:
        """Decodes what is not there yet, several files at a time, with a progress bar.

        Raises:
            UserError: an image cannot be read, or the folder cannot be written.
        """
        missing = [(path, stored) for path in paths if not (stored := self._stored(path)).exists()]
        if not missing:
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # OpenCV decodes outside of Python's lock
            work = pool.map(lambda item: self._store(*item), missing)
            for _ in tqdm(work, total=len(missing), desc=f"decoding into {self.folder}", unit="image", disable=None):
                continue

    def _stored(self, path: Path) -> Path:
        try:
            facts = path.stat()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        identity = f"{path.resolve()}|{facts.st_size}|{facts.st_mtime_ns}"
        return self.folder / f"{path.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npy"

    def _store(self, path: Path, stored: Path) -> None:
        pixels = read_pixels(path)
        with whole_file(stored) as partial, partial.open("wb") as file:
            np.save(file, pixels)
