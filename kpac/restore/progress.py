"""Progress of a restoration: a bar on a terminal, or a callback."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

Progress = bool | Callable[[float], object]
"""True shows a bar on a terminal, False nothing; a function is called with the finished share, in [0, 1]."""


@contextmanager
def counted(total: int, progress: Progress, **bar: Any) -> Iterator[Callable[[int], object]]:
    """Yields a function to call with the number of newly finished parts.

    Args:
        total: number of parts.
        progress: shows a bar, or is called with the finished share.
        bar: further settings of the bar; see tqdm.
    """
    if not callable(progress):
        with tqdm(total=total, leave=False, disable=None if progress else True, **bar) as shown:
            yield shown.update
        return
    done = 0

    def update(count: int) -> None:
        nonlocal done
        done += count
        progress(done / total)

    yield update
