"""Deferred signals: Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 are recorded until the work can stop cleanly."""

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

# SIGHUP is sent when a terminal closes, SIGUSR1 by schedulers before they end a job. Windows has neither.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
SIGNALS = (signal.SIGINT, *ENDING)


class StopRequest:
    """Context that records a signal in `number` instead of ending the process at once.

    A second Ctrl-C has its usual effect, so that a user can end the process immediately. Any other second signal is
    ignored, because SLURM and torchrun may both send one while the work is being saved. SIGHUP is not handled under
    nohup.

    Attributes:
        number: number of the first signal; 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            self._earlier = {number: signal.signal(number, self._receive) for number in SIGNALS if is_heeded(number)}
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self._earlier):
            self._restore(number)

    def stopped(self, more: str = "") -> Stopped:
        """The exception to raise once the work has stopped; `more` is appended to its message."""
        return stopped(self.number, more)

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number
        drop_closed_terminal()
        if number == signal.SIGINT:
            self._restore(number)

    def _restore(self, number: int) -> None:
        signal.signal(number, self._earlier.pop(number))


def is_heeded(number: int) -> bool:
    """Whether a signal should be handled; not if it is ignored on purpose, such as SIGHUP under nohup."""
    return number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) is not signal.SIG_IGN


def drop_closed_terminal() -> None:
    """Redirects output to the null device if the terminal is closed: printing would raise and interrupt a save."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            number = stream.fileno()
            if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                with Path(os.devnull).open("wb") as nowhere:
                    os.dup2(nowhere.fileno(), number)


def stopped(number: int, more: str = "", remedy: str | None = None, **values: Any) -> Stopped:
    """The exception for a signal, with the exit status 128 + number; `more` is appended to the message."""
    word = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    return Stopped(word + more, 128 + number, remedy, **values)
