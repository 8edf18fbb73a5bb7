"""Stop requests by signal, handled by all ranks of a run after the same step."""

from pathlib import Path

import torch
import torch.distributed as dist

from kpac.distributed import Ranks
from kpac.errors import Stopped
from kpac.signals import StopRequest, stopped


def training_stopped(number: int, iteration: int, folder: Path, saved: bool) -> Stopped:
    """The exception that ends a training run after a signal.

    Args:
        number: the signal's number.
        iteration: number of finished steps.
        folder: folder of the run.
        saved: whether a checkpoint was written after the last step.
    """
    kept = "the run is saved" if saved else "its last steps were skipped and are not saved"
    return stopped(number, f" after iteration {iteration}; {kept}", "resume", folder=folder)


class AgreedStop(StopRequest):
    """A stop request that reaches every rank at the same step.

    Args:
        ranks: this rank, and communication with the others.
    """

    def __init__(self, ranks: Ranks):
        super().__init__()
        self.ranks = ranks
        self._pending: tuple[dist.Work, torch.Tensor] | None = None

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)
        if self._pending and details[0] is None:
            self._pending[0].wait()

    def agreed(self) -> int:
        """Number of a signal that any rank received, 0 for none. Collective: call it on every rank at every step.

        The all-reduce runs in the background and is read one step later, so no rank waits for it.
        """
        if not self.ranks.control:
            return self.number
        answer = 0
        if self._pending:
            work, numbers = self._pending
            work.wait()
            answer = int(numbers)
        numbers = torch.tensor(self.number)
        work = dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self.ranks.control, async_op=True)
        self._pending = (work, numbers)
        return answer
