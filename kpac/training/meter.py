"""Means of losses and other values over the steps between two log lines, and the training speed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from kpac.distributed import Ranks


class Meter:
    """Sums values on the device; only `take` and `state_dict` synchronise with it.

    Args:
        ranks: this rank, and communication with the others.
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
        """Excludes the time inside from the speed, for validations and checkpoints."""
        start = time.perf_counter()
        yield
        self.paused += time.perf_counter() - start

    def add(self, values: dict[str, Tensor], finite: Tensor, images: int) -> None:
        """Adds one step's values.

        Args:
            values: name -> (), on the device; values of a skipped step are ignored.
            finite: (), False if the step was skipped.
            images: number of crops in the step, over all ranks.
        """
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + torch.where(finite, value.detach(), 0.0)
        self.good = self.good + finite
        self.images += images

    def take(self) -> dict[str, float]:
        """Returns the means over steps and ranks, "images_per_second" and "data_wait" (0 to 1), and resets all sums.

        The means are NaN if every step was skipped. Collective: call it on every rank.
        """
        state = self.state_dict()
        good = state.pop("good").item()
        means = {name: total.item() / good if good else float("nan") for name, total in state.items()}
        seconds = time.perf_counter() - self.started - self.paused  # `item` above has synchronised the device
        means |= {"images_per_second": self.images / seconds, "data_wait": self.waited / seconds}
        self.sums, self.good = {}, torch.zeros_like(self.good)
        self._start_clocks()
        return means

    def state_dict(self) -> dict[str, Tensor]:
        """The sums so far, averaged over ranks, and "good", the number of steps not skipped. Collective."""
        names = [*self.sums]
        values = self.ranks.mean(torch.stack([*self.sums.values(), self.good]))
        return dict(zip([*names, "good"], values.cpu(), strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Loads what `state_dict` returned, so that the next log line equals that of an uninterrupted run."""
        state = {name: value.to(self.ranks.device) for name, value in state.items()}
        self.good = state.pop("good")
        self.sums = state
