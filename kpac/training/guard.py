"""Steps whose gradient is not finite: counted on the device, and the end of a run that has too many in a row."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Skipped:
    """How many steps were skipped.

    Args:
        streak: in a row until now; 0 after a good step.
        longest: the longest row.
        total: altogether.
        latest: iteration of the last one, 0 for none.
        start: position in the stream of that step's first crop.
    """

    streak: int
    longest: int
    total: int
    latest: int
    start: int


class DivergenceGuard:
    """Counts skipped steps where they happen; nothing waits for the device until `read`.

    Args:
        device: where the gradients are.
    """

    def __init__(self, device: torch.device):
        zeros = torch.zeros(5, dtype=torch.int64, device=device)
        self._streak, self._longest, self._total, self._latest, self._start = zeros

    def resume(self, total: int) -> None:
        """Continues the count of a checkpoint."""
        self._total.fill_(total)

    def count(self, finite: Tensor, iteration: int, start: int) -> None:
        """Takes note of one step.

        Args:
            finite: (), whether the step was made.
            iteration: of the step, from 1.
            start: position in the stream of its first crop.
        """
        self._streak = torch.where(finite, 0, self._streak + 1)
        self._longest = torch.maximum(self._longest, self._streak)
        self._total = self._total + ~finite
        self._latest = torch.where(finite, self._latest, iteration)
        self._start = torch.where(finite, self._start, start)

    def read(self) -> Skipped:
        """The counts so far; waits for the device."""
        return Skipped(*torch.stack((self._streak, self._longest, self._total, self._latest, self._start)).tolist())
