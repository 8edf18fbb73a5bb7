"""Processes that work for another one."""

import signal


def leave_interrupts_to_the_parent(*_: int) -> None:
    """Ignores Ctrl-C in a worker: the terminal sends it to every process, and the parent alone should answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
