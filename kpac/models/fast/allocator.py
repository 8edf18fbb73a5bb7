"""What the C library does with freed memory, where it is glibc; elsewhere these functions do nothing.

It returns every large tensor to the operating system, which clears each page that it hands out again: a third of the
time of a training step on a CPU (`python benchmarks/network.py --tricks`).
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # names of <malloc.h>
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}
USUAL = {MMAP_MAX: 65536, TRIM_THRESHOLD: 128 << 10}  # what glibc starts with


def keep_freed_memory() -> None:
    """Keeps the memory of freed tensors for the next ones, for the rest of this process."""
    _set(KEEPING)
    USUAL.update(KEEPING)


def hand_back_freed() -> None:
    """Returns what is free to the system.

    The C library otherwise keeps blocks of up to 32 MB for later ones, which then do not fit: tiles of 512 over 6
    megapixels took 1.85 GB at most without this, and 1.44 GB with it after every tile, in the same time
    (benchmarks/tiling.py).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keeps freed memory inside the context, and hands it back at the end."""
    _set(KEEPING)
    try:
        yield
    finally:
        if USUAL != KEEPING:
            _set(USUAL)
            hand_back_freed()


def _set(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in options.items():
            mallopt(name, value)
