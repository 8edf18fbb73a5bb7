"""Pieces of work in threads, each of which has one core and the memory in its cache to itself.

PyTorch divides every operation among its threads, and waits for all of them before the next one. Here a thread takes a
band of rows through many operations instead.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from threading import Barrier, Event, Thread
from typing import TypeVar

import torch
from torch import Tensor

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def in_threads(function: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
    """`function` of each piece, in their order, in as many threads as PyTorch has; without gradients or autocast.

    Within `function`, PyTorch computes with one thread. After an error, pieces that were begun still finish.
    """
    threads = torch.get_num_threads()
    inference = torch.is_inference_mode_enabled()  # known to the calling thread alone

    def call(piece: Piece) -> Result:
        with torch.inference_mode(inference), torch.no_grad(), torch.autocast("cpu", enabled=False):
            return function(piece)

    if threads == 1:
        yield from map(call, pieces)
        return
    _let_others_sleep()
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


@lru_cache(maxsize=1)
def _let_others_sleep() -> None:
    """Keeps PyTorch's own threads from looking out for their next operation, on the cores that are needed here.

    GNU's OpenMP has threads do so for milliseconds, unless there are more of them than cores (its manual, on
    GOMP_SPINCOUNT). Here it gets some that never work: training steps of 8x96 take 0.29 s instead of 0.42
    (`python benchmarks/network.py --tricks`).
    """
    begun, never = Event(), Event()
    before = torch.get_num_threads()

    def wait() -> None:
        try:
            torch.set_num_threads(os.cpu_count() or 1)
            torch.zeros(1 << 20, dtype=torch.float32, device="cpu").add_(1)
        finally:
            begun.set()
        never.wait()

    Thread(target=wait, name="kpac-idle", daemon=True).start()
    begun.wait()
    _begin_later_threads_with(before)


def _begin_later_threads_with(number: int) -> None:
    """The number of threads that a thread sets is its own, but also the one that later threads begin with."""
    other = Thread(target=torch.set_num_threads, args=(number,))
    other.start()
    other.join()


if hasattr(os, "register_at_fork"):  # a child process has none of its parent's threads
    for started in (_pool, _let_others_sleep):
        os.register_at_fork(after_in_child=started.cache_clear)


def channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W, C), without gaps."""
    return x.permute(0, 2, 3, 1).contiguous()


def spans(size: int, most: int, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Cuts of about equal size, none much above `most`, at multiples of `multiple`."""
    count = -(-size // most)
    cuts = sorted({size * index // count // multiple * multiple for index in range(count)} | {size})
    yield from pairwise(cuts)
