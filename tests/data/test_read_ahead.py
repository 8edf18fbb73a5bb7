"""Items come in order, read by several threads at once, and no further ahead than there are threads."""

import threading

import pytest

from kpac.data.read_ahead import read_ahead
from kpac.errors import UserError


class Slow:
    """Items that wait for each other: none is read before `together` are being read."""

    def __init__(self, together: int = 1):
        self.barrier = threading.Barrier(together)
        self.started = []

    def __getitem__(self, index: int) -> int:
        self.started.append(index)
        self.barrier.wait(timeout=20)
        if index < 0:
            raise UserError("a.png: cannot be read")
        return 10 * index


def test_several_items_are_read_at_once_and_come_in_order():
    assert list(read_ahead(Slow(together=3), [4, 2, 9, 1, 0, 5], threads=3)) == [40, 20, 90, 10, 0, 50]


def test_no_more_are_read_than_there_are_threads():
    items = Slow()
    coming = read_ahead(items, range(10), threads=2)
    next(coming)
    coming.close()
    assert len(items.started) <= 3


def test_error_comes_when_its_item_does():
    coming = read_ahead(Slow(), [1, -1, 2], threads=2)
    assert next(coming) == 10
    with pytest.raises(UserError, match="cannot be read"):
        next(coming)


@pytest.mark.parametrize("indices", [[], [7]])
def test_few_items_need_no_more_threads(indices):
    assert list(read_ahead(Slow(), indices, threads=4)) == [10 * index for index in indices]
