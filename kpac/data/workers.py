"""Signal handling in worker processes."""

import multiprocessing
import os
import signal
import threading

from kpac.signals import SIGNALS


def leave_interrupts_to_the_parent(*_: int) -> None:
    """Ignores Ctrl-C in a worker: the terminal sends it to every process, but only the parent should handle it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_with_the_parent() -> None:
    """Ignores Ctrl-C in a spawned worker, and ends the worker when its parent ends for any reason.

    A pool's worker holds both ends of its task pipe, so the pipe does not close when the parent dies.
    """
    leave_interrupts_to_the_parent()
    threading.Thread(target=_outlive_nobody, daemon=True).start()


def _outlive_nobody() -> None:
    parent = multiprocessing.parent_process()
    assert parent  # this is a worker
    parent.join()
    os._exit(1)


def leave_signals_to_the_parent(*_: int) -> None:
    """Makes a worker ignore the signals that ask the parent to stop, but only the first SIGTERM.

    A scheduler sends SIGTERM or SIGUSR1 to every process of a job; a closing terminal sends SIGHUP. If such a signal
    killed a worker, the parent could not finish its step and save a checkpoint. A second SIGTERM comes from the parent,
    to end a worker that is stuck.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _let_the_next_one_act)


def _let_the_next_one_act(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_DFL)
