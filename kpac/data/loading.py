"""Batches from worker processes: errors of the user arrive as such, and no worker outlives the loading."""

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
    """The data of a running training cannot be read any more."""


def shared_memory_message() -> str:
    """What to do where the batches of data workers do not fit in shared memory, as in Docker with its 64 MB."""
    size = ""
    with suppress(OSError):
        usage = shutil.disk_usage("/dev/shm")
        size = f" ({bytes_text(usage.total)}, {bytes_text(usage.free)} free)"
    return (
        f"/dev/shm{size} is too small for the batches of the data workers; give a container more (docker run "
        "--shm-size=8g), or set data.workers lower, to 0 for none"
    )


class Batches(Iterator[Any]):
    """One pass over a data set of batches; leaving it as a context ends its workers, whatever state they are in.

    Args:
        dataset: gives a whole batch for each place that the sampler names.
        workers: processes that prepare batches; they start now.
        options: for `torch.utils.data.DataLoader`.

    Raises:
        LoadingError: from `next`, an item met a user's mistake; inside the context, a worker was killed.
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
        # PyTorch raises it wherever the main thread is when a worker dies, not only in `next`.
        if killed and isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
            if killed == "SIGBUS":  # what writing into a full /dev/shm gives
                raise LoadingError(shared_memory_message()) from None
            raise LoadingError(f"a data worker was killed by {killed} (out of memory?); lower data.workers") from None

    def _end_workers(self) -> str | None:
        """Ends the workers, by force if need be; returns the name of a signal that had killed one.

        Left to the garbage collector and the interpreter's exit this may never end: an error's traceback keeps the
        loader alive, and the one SIGTERM that workers then get is the one that they leave to their parent.
        """
        workers = getattr(self._batches, "_workers", ())  # the loader of a process without workers has none
        if workers:
            self._batches._shutdown_workers()  # type: ignore[attr-defined]  # of the iterator with workers
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
