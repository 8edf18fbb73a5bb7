"""What the C library does with freed memory, where it is glibc; elsewhere these functions do nothing.

It returns every large tensor to the operating system, which clears each page that it hands out again: two fifths of the
time of a training step on a CPU (`python benchmarks/network.py --tricks`).
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # names of <malloc.h>
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}
# What glibc settles at by itself in a program with large blocks; what it had before cannot be asked.
RETURNING = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}

_depth = 0  # of contexts that keep memory
_lock = Lock()


def keep_freed_memory() -> None:
    """Keeps the memory of freed tensors for the next ones, for the rest of this process."""
    _enter()


def hand_back_freed() -> None:
    """Returns what is free to the system.

    The C library otherwise keeps blocks of up to 32 MB for later ones, which then do not fit: tiles of 512 over 6
    megapixels took 1.85 GB at most without this, and 1.44 GB with it after every tile, in the same time
    (benchmarks/tiling.py).
    """
    trim = _of_the_library("malloc_trim")
    if trim is not None:
        trim(0)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keeps freed memory inside the context, and hands it back at the end of the outermost one.

    Around several images of one size, each takes over the memory of the last, which saves 8 % of the time of a forward
    pass (`python benchmarks/network.py --tricks`).
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _depth
    with _lock:
        _depth += 1
        if _depth == 1:
            _set(KEEPING)


def _leave() -> None:
    global _depth
    with _lock:
        _depth -= 1
        if _depth == 0:
            _set(RETURNING)
            hand_back_freed()


def _set(options: dict[int, int]) -> None:
    mallopt = _of_the_library("mallopt")
    if mallopt is not None:
        for name, value in options.items():
            mallopt(name, value)


def _of_the_library(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
