"""Runs pieces of work in threads, one per core, so that each piece stays in one core's cache.

PyTorch divides every operation among its threads, and waits for all of them before the next one. Here, each thread
takes a band of rows through many operations instead.
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
    """Calls `function` for each piece in threads, without gradients or autocast; yields the results in order.

    Uses as many threads as PyTorch does. Within `function`, PyTorch uses one thread. After an error, pieces that have
    started still finish.
    """
    threads = torch.get_num_threads()
    inference = torch.is_inference_mode_enabled()  # thread-local: read it in the calling thread

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
            if len(waiting) > 2 * threads:  # bounds the memory of waiting results
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
        torch.get_num_threads()  # makes PyTorch initialize the count now; later it would overwrite ours
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, "kpac", initializer=start)
    try:
        for _ in range(threads):
            pool.submit(int)
        started.wait()
    except BaseException:
        started.abort()  # otherwise the started threads, and Python at its exit, would wait forever
        raise
    _begin_later_threads_with(threads)
    return pool


@lru_cache(maxsize=1)
def _let_others_sleep() -> None:
    """Stops PyTorch's idle OpenMP threads from spinning on the cores that are needed here.

    Idle threads of GNU's OpenMP spin for milliseconds, unless there are more threads than cores (see GOMP_SPINCOUNT in
    its manual). This function adds threads that never work, to exceed the number of cores. Training steps of 8x96 take
    0.29 s instead of 0.42 s (`python benchmarks/network.py --tricks`).
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
    """Sets PyTorch's initial thread count for threads started later, but not the current thread's count.

    `torch.set_num_threads` sets both the calling thread's count and this initial count, so it is called in another
    thread.
    """
    other = Thread(target=torch.set_num_threads, args=(number,))
    other.start()
    other.join()


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    for started in (_pool, _let_others_sleep):
        os.register_at_fork(after_in_child=started.cache_clear)


def channels_last(x: Tensor) -> Tensor:
    """Converts (N, C, H, W) to contiguous (N, H, W, C)."""
    return x.permute(0, 2, 3, 1).contiguous()


def spans(size: int, most: int, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Divides 0..`size` into spans (first, last exclusive) of about equal length, at multiples of `multiple`.

    No span is much longer than `most`.
    """
    count = -(-size // most)
    cuts = sorted({size * index // count // multiple * multiple for index in range(count)} | {size})
    yield from pairwise(cuts)
