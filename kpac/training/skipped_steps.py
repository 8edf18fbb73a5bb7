"""Counts steps that are skipped because their gradient is not finite, on the device."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Skipped:
    """Numbers of skipped steps."""

    streak: int  # consecutive skipped steps up to now; 0 after a good step
    longest: int  # the longest such streak
    total: int  # all skipped steps
    latest: int  # iteration of the last skipped step, 0 for none
    start: int  # position of that step's first crop in the training stream


class SkippedSteps:
    """Counts skipped steps on the device; only `read` synchronises.

    Args:
        device: where the gradients are.
    """

    def __init__(self, device: torch.device):
        zeros = torch.zeros(5, dtype=torch.int64, device=device)
        self._streak, self._longest, self._total, self._latest, self._start = zeros

    def resume(self, total: int) -> None:
        """Sets the total of earlier steps, from a checkpoint."""
        self._total.fill_(total)

    def count(self, finite: Tensor, iteration: int, start: int) -> None:
        """Records one step.

        Args:
            finite: (), False if the step was skipped.
            iteration: number of the step, from 1.
            start: position of its first crop in the training stream.
        """
        self._streak = torch.where(finite, 0, self._streak + 1)
        self._longest = torch.maximum(self._longest, self._streak)
        self._total = self._total + ~finite
        self._latest = torch.where(finite, self._latest, iteration)
        self._start = torch.where(finite, self._start, start)

    def read(self) -> Skipped:
        """The counts so far; synchronises with the device."""
        return Skipped(*torch.stack((self._streak, self._longest, self._total, self._latest, self._start)).tolist())
