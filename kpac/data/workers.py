"""Processes that work for another one."""

import multiprocessing
import os
import signal
import threading

from kpac.signals import SIGNALS


def leave_interrupts_to_the_parent(*_: int) -> None:
    """Ignores Ctrl-C in a worker: the terminal sends it to every process, and the parent alone should answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_with_the_parent() -> None:
    """Ignores Ctrl-C in a spawned worker, and ends it when its parent ends, however that does.

    A pool's worker holds both ends of the pipe that its work comes through: nothing there tells it of a parent's death.
    """
    leave_interrupts_to_the_parent()
    threading.Thread(target=_outlive_nobody, daemon=True).start()


def _outlive_nobody() -> None:
    parent = multiprocessing.parent_process()
    assert parent  # this is a worker
    parent.join()
    os._exit(1)


def leave_signals_to_the_parent(*_: int) -> None:
    """Ignores the signals that ask the parent to stop in a worker; of SIGTERM the first one only.

    A scheduler sends SIGTERM or SIGUSR1 to every process of a job, a closing terminal SIGHUP. A worker that died of it
    would break off the step after which the parent saves a checkpoint. The second SIGTERM is the parent's own, for a
    worker that is stuck.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _let_the_next_one_act)


def _let_the_next_one_act(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_DFL)
