"""Requests to stop: Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 are kept until the work can end in good order."""

import os
import signal
import stat
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from typing_extensions import Self

from kpac.errors import Stopped

# SIGHUP comes when a terminal closes, SIGUSR1 from schedulers that announce the end of a job; Windows has neither.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
SIGNALS = (signal.SIGINT, *ENDING)


class StopRequest:
    """While it is open, a signal is kept in `number` instead of ending the process at once.

    A second Ctrl-C acts as it did before: a user who asks twice wants the end now. Any other second signal is ignored:
    SLURM and torchrun both send one, and the work is still being saved. SIGHUP is left alone under nohup.

    Attributes:
        number: of the first signal; 0 for none.
    """

    def __init__(self):
        self.number = 0
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            self._earlier = {number: signal.signal(number, self._receive) for number in SIGNALS if is_heeded(number)}
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self._earlier):
            self._restore(number)

    def stopped(self, more: str = "") -> Stopped:
        """The exception to raise when the work has ended; `more` completes its message."""
        return stopped(self.number, more)

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number
        drop_closed_terminal()
        if number == signal.SIGINT:
            self._restore(number)

    def _restore(self, number: int) -> None:
        signal.signal(number, self._earlier.pop(number))


def is_heeded(number: int) -> bool:
    """Whether a signal may be handled here; nohup asks for SIGHUP to be ignored."""
    return number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) is not signal.SIG_IGN


def drop_closed_terminal() -> None:
    """Sends output to nowhere once the terminal is gone: printing would raise, in the middle of a save."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            number = stream.fileno()
            if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                with Path(os.devnull).open("wb") as nowhere:
                    os.dup2(nowhere.fileno(), number)


def stopped(number: int, more: str = "") -> Stopped:
    """The exception for a signal, with its exit status of 128 + number; `more` completes the message."""
    word = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    return Stopped(word + more, 128 + number)
