"""Means of losses and other values over the steps between two log lines, and their speed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from kpac.distributed import Ranks


class Meter:
    """Sums values on the device, without synchronising; only `take` and `state_dict` wait for it.

    Args:
        ranks: this rank, and the way to the others.
    """

    def __init__(self, ranks: Ranks):
        self.ranks = ranks
        self.sums: dict[str, Tensor] = {}
        self.good = torch.zeros((), device=ranks.device)
        self._start_clocks()

    def _start_clocks(self) -> None:
        self.images = 0
        self.paused = self.waited = 0.0
        self.started = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves the time inside out of the speed: validations and checkpoints are no steps."""
        start = time.perf_counter()
        yield
        self.paused += time.perf_counter() - start

    def add(self, values: dict[str, Tensor], finite: Tensor, images: int) -> None:
        """Adds one step's values.

        Args:
            values: name -> (), on the device; nothing of a skipped step counts.
            finite: (), whether the step was made.
            images: crops of the step, over all ranks.
        """
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + torch.where(finite, value.detach(), 0.0)
        self.good = self.good + finite
        self.images += images

    def take(self) -> dict[str, float]:
        """The means over steps and ranks, then "images_per_second" and "data_wait" (0 to 1); starts anew.

        The means are NaN where every step was skipped.
        """
        state = self.state_dict()
        good = state.pop("good").item()
        means = {name: total.item() / good if good else float("nan") for name, total in state.items()}
        seconds = time.perf_counter() - self.started - self.paused  # the device has caught up
        means |= {"images_per_second": self.images / seconds, "data_wait": self.waited / seconds}
        self.sums, self.good = {}, torch.zeros_like(self.good)
        self._start_clocks()
        return means

    def state_dict(self) -> dict[str, Tensor]:
        """The sums so far, as means over ranks, and "good", the number of steps that were made."""
        names = [*self.sums]
        values = self.ranks.mean(torch.stack([*self.sums.values(), self.good]))
        return dict(zip([*names, "good"], values.cpu(), strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continues from what `state_dict` returned: the next line is the one of an uninterrupted run."""
        state = {name: value.to(self.ranks.device) for name, value in state.items()}
        self.good = state.pop("good")
        self.sums = state
