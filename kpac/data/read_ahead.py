"""Items of a data set in order, several of them read in threads before they are asked for."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from kpac.environment import usable_cores

Item = TypeVar("Item", covariant=True)
MOST = 8  # threads; each holds a decoded scene, 45 MB of float32 for one of 1120x1680 with its target


class Readable(Protocol[Item]):
    def __getitem__(self, index: int) -> Item: ...


def read_ahead(dataset: Readable[Item], indices: Sequence[int], threads: int | None = None) -> Iterator[Item]:
    """The items at some indices, in order; the next ones are read while the caller works on this one.

    Reading is decoding, which OpenCV and NumPy do outside of Python's lock.

    Args:
        dataset: read by several threads at once.
        indices: what to read.
        threads: by default the cores that this process may use, eight at most.

    Raises:
        UserError: whatever reading an item raises, when its turn comes.
    """
    threads = threads or min(MOST, usable_cores())
    pool = ThreadPoolExecutor(threads)
    try:
        coming = deque(pool.submit(dataset.__getitem__, index) for index in indices[:threads])
        for following in [*indices[threads:], *[None] * len(coming)]:
            item = coming.popleft().result()
            if following is not None:
                coming.append(pool.submit(dataset.__getitem__, following))
            yield item
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
