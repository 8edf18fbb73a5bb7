"""Worker processes pass on mistakes in one line, and none is left behind."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable

import pytest
import torch
from torch.utils.data import Dataset

from kpac.data.loading import Batches, LoadingError
from kpac.errors import UserError


class Items(Dataset):
    """Batches of numbers; where one is negative, a mistake."""

    def __getitem__(self, numbers: list[int]) -> torch.Tensor:
        if min(numbers) < 0:
            raise UserError("a.png: cannot be read")
        return torch.tensor(numbers)


def use(workers: int, batches: list[list[int]], work: Callable[[], None] = lambda: None) -> None:
    """Reads all batches, and works after each."""
    with Batches(Items(), workers, sampler=batches) as loaded:
        for batch, numbers in zip(loaded, batches, strict=True):
            assert batch.tolist() == numbers
            work()


def kill_worker() -> None:
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    time.sleep(60)  # a training step, say; the death ends it at once


def fail() -> None:
    raise RuntimeError("of the network")


@pytest.mark.parametrize("workers", [0, 2])
def test_mistake_arrives_as_its_own_line_and_the_workers_end(workers):
    with pytest.raises(LoadingError) as mistake:
        use(workers, [[1, 2], [3, -4]])
    assert str(mistake.value) == "a.png: cannot be read"
    assert multiprocessing.active_children() == []


def test_killed_worker_is_named_wherever_its_parent_notices():
    with pytest.raises(LoadingError, match=r"killed by SIGKILL \(out of memory\?\); lower data.workers"):
        use(1, [[1]] * 1000, kill_worker)
    assert multiprocessing.active_children() == []


def kill_by_full_memory() -> None:
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGBUS)
    time.sleep(60)


class FullSharedMemory(Dataset):
    def __getitem__(self, place: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


def test_small_shared_memory_names_what_to_do():
    words = r"^/dev/shm .*too small for the batches of the data workers; .*--shm-size=8g\), or lower data.workers"
    with pytest.raises(LoadingError, match=words):
        use(1, [[1]] * 1000, kill_by_full_memory)
    with pytest.raises(LoadingError, match=words), Batches(FullSharedMemory(), 1, sampler=[0]) as batches:
        next(batches)
    assert multiprocessing.active_children() == []


def test_other_errors_stay_what_they_are_and_end_the_workers():
    with pytest.raises(RuntimeError, match="of the network") as error:
        use(2, [[1]] * 1000, fail)
    assert not isinstance(error.value, UserError)
    assert multiprocessing.active_children() == []
