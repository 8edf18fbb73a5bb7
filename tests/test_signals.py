"""A first signal is kept until the work can end; what a second one does depends on who sends it."""

import signal

import pytest

from kpac.signals import StopRequest


def test_first_signal_is_kept_and_named():
    for number, words in ((signal.SIGTERM, "stopped by SIGTERM, saved"), (signal.SIGINT, "interrupted, saved")):
        with StopRequest() as stop:
            assert stop.number == 0
            signal.raise_signal(number)
            assert stop.number == number
        end = stop.stopped(", saved")
        assert (str(end), end.status) == (words, 128 + number)


def test_second_sigterm_is_ignored_while_the_first_is_answered():
    """SLURM sends one to every process of a job, and torchrun then its own to its workers."""
    with StopRequest() as stop:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert stop.number == signal.SIGTERM


def test_second_interrupt_acts_at_once():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stop.number == signal.SIGINT


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest():
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
