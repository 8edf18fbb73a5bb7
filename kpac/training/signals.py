"""Ctrl-C and SIGTERM end a training between two steps, in all processes at the same one."""

import signal
import threading
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
from typing_extensions import Self

from kpac.errors import Stopped
from kpac.training.checkpoint import resume_command
from kpac.training.distributed import Processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def stopped(number: int, iteration: int, folder: Path) -> Stopped:
    """What to raise after a signal, and after the run was saved."""
    word = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    text = f"{word} after iteration {iteration}; the run is saved, continue with: {resume_command(folder)}"
    return Stopped(text, 128 + number)


class StopSignals:
    """While it is open, the first Ctrl-C or SIGTERM is kept for `agreed`; the second acts as it always does.

    Args:
        here: this process among all.
    """

    def __init__(self, here: Processes):
        self.here = here
        self._received = 0
        self._earlier: dict[int, object] = {}
        self._pending: tuple[dist.Work, torch.Tensor] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # the only one that Python lets handle signals
            self._earlier = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if self._pending and kind is None:
            self._pending[0].wait()

    def agreed(self) -> int:
        """The number of a signal that came to any process, 0 for none; to be asked by every process at every step.

        The processes ask each other in the background and read the answer one step later, so that no one waits.
        """
        if self.here.world_size == 1:
            return self._received
        answer = 0
        if self._pending:
            work, numbers = self._pending
            work.wait()
            answer = int(numbers)
        numbers = torch.tensor(self._received)
        work = dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self.here.control, async_op=True)
        self._pending = (work, numbers)
        return answer

    def _receive(self, number: int, _: FrameType | None) -> None:
        self._received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier = {}
