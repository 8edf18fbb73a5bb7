"""Requests to stop: Ctrl-C and SIGTERM are kept until the work can end in good order."""

import signal
import threading
from types import FrameType

from typing_extensions import Self

from kpac.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While it is open, a signal is kept in `number` instead of ending the process at once.

    A second Ctrl-C acts as it did before: a user who asks twice wants the end now. A second SIGTERM is ignored: SLURM
    and torchrun both send one, and the work is still being saved.

    Attributes:
        number: of the first signal; 0 for none.
    """

    def __init__(self):
        self.number = 0
        self._earlier: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            self._earlier = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self._earlier):
            self._restore(number)

    def stopped(self, more: str = "") -> Stopped:
        """The exception to raise when the work has ended; `more` completes its message."""
        return stopped(self.number, more)

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number
        if number == signal.SIGINT:
            self._restore(number)

    def _restore(self, number: int) -> None:
        signal.signal(number, self._earlier.pop(number))


def stopped(number: int, more: str = "") -> Stopped:
    """The exception for a signal, with its exit status of 128 + number; `more` completes the message."""
    word = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    return Stopped(word + more, 128 + number)
