"""How far a restoration has come: as a bar on a terminal, or told to a function."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

Progress = bool | Callable[[float], object]
"""True shows a bar on a terminal, False nothing; a function is told the share that is done, in [0, 1]."""


@contextmanager
def counted(total: int, progress: Progress, **bar: Any) -> Iterator[Callable[[int], object]]:
    """Gives a function to call with each count of finished parts.

    Args:
        total: number of parts.
        progress: who is told.
        bar: further settings of the bar, see tqdm.
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
