"""Prefetches the items of a data set in threads."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from kpac.environment import usable_cores

Item = TypeVar("Item", covariant=True)
MOST = 8  # threads; each holds a decoded scene: 45 MB of float32 for 1120x1680 with its target


class Readable(Protocol[Item]):
    def __getitem__(self, index: int) -> Item: ...


def read_ahead(dataset: Readable[Item], indices: Sequence[int], threads: int | None = None) -> Iterator[Item]:
    """Yields the items at the given indices, in order; reads the next ones while the caller works on the current one.

    Reading consists mostly of decoding, during which OpenCV and NumPy release Python's GIL.

    Args:
        dataset: the data set; several threads read from it at once.
        indices: indices of the items to read.
        threads: number of threads; by default the cores that this process may use, eight at most.

    Raises:
        UserError: reading an item failed; raised when that item is due.
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
