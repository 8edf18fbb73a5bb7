"""Loads batches in worker processes; passes on UserErrors, and ends all workers reliably."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any

from torch.utils.data import DataLoader, Dataset
from typing_extensions import Self

from kpac.data.workers import leave_signals_to_the_parent
from kpac.errors import UserError
from kpac.text import bytes_text


class LoadingError(UserError):
    """The data of a running training can no longer be read."""


def shared_memory_message() -> str:
    """Message for shared memory that is too small for the workers' batches, such as Docker's default of 64 MB."""
    size = ""
    with suppress(OSError):
        usage = shutil.disk_usage("/dev/shm")
        size = f" ({bytes_text(usage.total)}, {bytes_text(usage.free)} free)"
    return (
        f"/dev/shm{size} is too small for the batches of the data workers; give the container more (docker run "
        "--shm-size=8g), or lower data.workers, if need be to 0"
    )


class Batches(Iterator[Any]):
    """Iterator over one pass of a data set of batches. As a context manager, it ends its workers at exit.

    Args:
        dataset: returns a whole batch for each item of the sampler.
        workers: number of processes that prepare batches; they start at once.
        options: further options of `torch.utils.data.DataLoader`.

    Raises:
        LoadingError: in `next`, the data set raised a UserError; inside the context, a worker was killed.
    """

    def __init__(self, dataset: Dataset, workers: int, **options: Any):
        loader = DataLoader(
            _UserErrorsReturned(dataset),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            worker_init_fn=leave_signals_to_the_parent,
            **options,
        )
        self._batches = iter(loader)

    def __next__(self) -> Any:
        batch = next(self._batches)
        if isinstance(batch, UserError):
            raise LoadingError(str(batch))
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        killed = self._end_workers()
        # When a worker dies, PyTorch raises this error wherever the main thread is, not only in `next`.
        if killed and isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
            if killed == "SIGBUS":  # the result of writing to a full /dev/shm
                raise LoadingError(shared_memory_message()) from None
            raise LoadingError(f"a data worker was killed by {killed} (out of memory?); lower data.workers") from None

    def _end_workers(self) -> str | None:
        """Ends the workers, by force if needed; returns the name of the signal that had killed one, if any.

        Without this, the interpreter may hang at its exit: an error's traceback keeps the loader alive, PyTorch sends
        the workers a single SIGTERM, and they ignore the first.
        """
        workers = getattr(self._batches, "_workers", ())  # without workers, the iterator has no such attribute
        if workers:
            self._batches._shutdown_workers()  # type: ignore[attr-defined]  # exists if there are workers
        codes = [worker.exitcode for worker in workers]
        for worker in workers:
            worker.kill()
        return next((signal.Signals(-code).name for code in codes if code and code < 0), None)


class _UserErrorsReturned(Dataset):
    """Returns a UserError instead of raising it: DataLoader would turn it into the text of a traceback."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, place: Any) -> Any:
        try:
            return self.dataset[place]
        except UserError as error:
            return error
        except RuntimeError as error:
            if "shared memory" not in str(error):
                raise
            return UserError(shared_memory_message())


def _as_it_is(item: Any) -> Any:
    return item
