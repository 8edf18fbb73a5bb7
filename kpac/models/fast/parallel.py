"""Pieces of work in threads, each of which has one core and the memory in its cache to itself.

PyTorch divides every operation among its threads, and waits for all of them before the next one. Here a thread takes a
band of rows through many operations instead.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from threading import Barrier, Thread, local
from typing import TypeVar

import torch
from torch import Tensor

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def in_threads(function: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
    """`function` of each piece, in their order, in as many threads as PyTorch has; without gradients.

    Within `function`, PyTorch computes with one thread. After an error, pieces that were begun still finish.
    """
    threads = thread_count()
    inference = torch.is_inference_mode_enabled()  # known to the calling thread alone

    def call(piece: Piece) -> Result:
        with torch.inference_mode(inference), torch.no_grad():
            return function(piece)

    if threads == 1:
        yield from map(call, pieces)
        return
    pool = _pool(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for piece in pieces:
            waiting.append(pool.submit(call, piece))
            if len(waiting) > 2 * threads:  # more results would only take memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def thread_count() -> int:
    """Threads that `in_threads` takes."""
    return getattr(_here, "threads", None) or torch.get_num_threads()


@contextmanager
def undivided() -> Iterator[None]:
    """Inside, PyTorch divides no operation of this thread, and `in_threads` takes the threads that it had.

    Threads that have divided an operation go on asking for the next one for some milliseconds, on a core where one of
    `in_threads` should be.
    """
    if getattr(_here, "threads", None):
        yield
        return
    before = torch.get_num_threads()
    try:
        _here.threads = before
        torch.set_num_threads(1)
        _begin_later_threads_with(before)
        yield
    finally:
        torch.set_num_threads(before)
        _here.threads = None


def _begin_later_threads_with(number: int) -> None:
    """The number of threads that a thread sets is its own, but also the one that later threads begin with."""
    other = Thread(target=torch.set_num_threads, args=(number,))
    other.start()
    other.join()


_here = local()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    started = Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # PyTorch would otherwise set its own number when the thread first needs one
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, "kpac", initializer=start)
    try:
        for _ in range(threads):
            pool.submit(int)
        started.wait()
    except BaseException:
        started.abort()  # or else those that have started would wait, and Python for them
        raise
    _begin_later_threads_with(threads)
    return pool


if hasattr(os, "register_at_fork"):  # a child process has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W, C), without gaps."""
    return x.permute(0, 2, 3, 1).contiguous()


def spans(size: int, most: int, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Cuts of about equal size, none much above `most`, at multiples of `multiple`."""
    count = -(-size // most)
    cuts = sorted({size * index // count // multiple * multiple for index in range(count)} | {size})
    yield from pairwise(cuts)
