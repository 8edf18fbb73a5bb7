"""Several processes under torchrun, or one: ranks, devices and what the processes tell each other."""

import logging
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kpac.environment import choose_device
from kpac.errors import Stopped, UserError

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """This process among all that train together.

    Args:
        rank: number of this process, 0 writes and prints.
        world_size: number of processes.
        device: where this process computes.
        control: group for what is no gradient, over the network and never through a GPU; None for one process.
    """

    rank: int
    world_size: int
    device: torch.device
    control: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def check_batch(self, batch_size: int, parts: int = 1, key: str = "train.batch_size") -> None:
        """Refuses a global batch that the processes, and the parts of a step, cannot share evenly.

        Args:
            batch_size: crops a step over all processes.
            parts: of a process's share, computed one after the other.
            key: what the configuration calls the batch size.

        Raises:
            UserError: the batch does not divide.
        """
        if batch_size % (self.world_size * parts):
            steps = f" times {parts} parts (train.accumulate)" if parts > 1 else ""
            raise UserError(
                f"{key}: {batch_size} does not divide among {self.world_size} processes{steps}; "
                f"expected a multiple of {self.world_size * parts}"
            )

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the processes; every one of them must ask."""
        if self.world_size > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.world_size
        return values

    def gather(self, value: Any) -> list[Any]:
        """What every process gives, in the order of ranks; every one of them must give something."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def together(self, work: Callable[[], Result]) -> Result:
        """Does something in all processes, and ends all of them when one meets a user's mistake.

        Raises:
            UserError: the mistake, in the first process that met it; the others leave without a word.
        """
        result, mistake = None, None
        try:
            result = work()
        except UserError as error:
            mistake = error
        met = self.gather(mistake is not None)
        if mistake and not any(met[: self.rank]):
            raise mistake
        if any(met):
            raise SystemExit(UserError.status)
        return result

    def first(self, work: Callable[[], Result]) -> Result:
        """Does something in the first process and gives its result in all; a user's mistake ends them all."""
        result = self.together(lambda: work() if self.is_first else None)
        if self.world_size == 1:
            return result
        results = [result]
        dist.broadcast_object_list(results, src=0, group=self.control)
        return results[0]

    def leave(self, reason: UserError | Stopped) -> NoReturn:
        """Ends all processes, each of which must come here: the first with a reason, the others without a word."""
        raise reason if self.is_first else SystemExit(reason.status)

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model, wrapped so that gradients are averaged over the processes."""
        if self.world_size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)

    def barrier(self) -> None:
        """Waits until every process is here."""
        if self.world_size > 1:
            dist.barrier(group=self.control)


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Joins the processes that torchrun started; without torchrun there is one.

    Args:
        device: "auto", "cpu" or "cuda". Each process of a machine takes the CUDA device of its local rank.

    Raises:
        UserError: no CUDA device for this process.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device)
    if world_size == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        local_rank, devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local_rank >= devices:
            raise UserError(
                f"{os.environ['LOCAL_WORLD_SIZE']} processes on this machine, but {devices} CUDA devices; "
                f"start torchrun with --nproc-per-node {devices} or less"
            )
        chosen = torch.device("cuda", local_rank)
        torch.cuda.set_device(chosen)
    store, rank, world_size = _store()
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    try:
        yield Processes(rank, world_size, chosen, dist.new_group(backend="gloo"))
    finally:
        dist.destroy_process_group()


def _store() -> tuple[dist.Store, int, int]:
    """Where the processes find each other, the rank, and the number of processes.

    torchrun keeps one store over its restarts, in which a process may read the address of one that died (PyTorch issue
    135712), so each attempt gets a prefix. Over several machines the attempts are not counted alike, and torchrun has
    to make a store for each: `TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1`.
    """
    store, rank, world_size = next(dist.rendezvous("env://"))
    machines, shared = int(os.environ.get("GROUP_WORLD_SIZE", "1")), os.environ.get("TORCHELASTIC_USE_AGENT_STORE")
    if machines == 1:
        return dist.PrefixStore(f"attempt {_attempt()}", store), rank, world_size
    if rank == 0 and shared == "True" and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")):
        log.warning("start torchrun with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, or its restarts may fail to connect")
    return store, rank, world_size


def last_part(parallel: nn.Module, is_last: bool) -> AbstractContextManager:
    """Lets a model average its gradients over the processes only in the last of several backward passes."""
    if isinstance(parallel, nn.parallel.DistributedDataParallel) and not is_last:
        return parallel.no_sync()
    return nullcontext()


def restarted() -> bool:
    """Whether torchrun started this process again, after one of its processes died."""
    return _attempt() > 0


def launch_name() -> str:
    """What all restarts of one torchrun have in common, and no other launch.

    torchrun's --rdzv-id, where one was given (--standalone draws one); else the machine and the launching process.
    """
    given = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return given if given != "none" else f"{platform.node()}:{os.getppid()}"


def _attempt() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
