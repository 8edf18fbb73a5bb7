"""Ranks of a torchrun launch: this process's rank, its device, and collective operations."""

import logging
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kpac.environment import check_usable, choose_device
from kpac.errors import Stopped, UserError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

SHARED = "KPAC_SHARE_GPU"  # 1: ranks may share a GPU, for tests; gradients then use gloo, since NCCL forbids sharing
_groups = count()  # counts the process groups that this process has joined; the same on every rank


@dataclass
class Ranks:
    """This process's rank and device, and the collective operations over all ranks."""

    rank: int  # rank of this process; rank 0 writes and prints
    world_size: int  # number of ranks
    device: torch.device  # where this rank computes
    control: dist.ProcessGroup | None = None  # gloo, for all but gradients, so that no GPU waits; None without torchrun
    leaving: bool = field(default=False, init=False)  # all ranks have agreed to exit

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def check_batch(self, batch_size: int, accumulate: int = 1, key: str = "train.batch_size") -> None:
        """Checks that the global batch is divisible by the ranks and the gradient-accumulation steps.

        Args:
            batch_size: crops per step, over all ranks.
            accumulate: gradient-accumulation steps per rank.
            key: configuration key of the batch size, for the message.

        Raises:
            UserError: the batch is not divisible.
        """
        if batch_size % (self.world_size * accumulate):
            steps = f" times {accumulate} steps (train.accumulate)" if accumulate > 1 else ""
            raise UserError(
                f"{key}: {batch_size} does not divide among {self.world_size} ranks{steps}; "
                f"expected a multiple of {self.world_size * accumulate}"
            )

    def mean(self, values: Tensor) -> Tensor:
        """Mean over ranks. Collective: call it on every rank."""
        if self.control:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.world_size
        return values

    def all_gather(self, value: Any) -> list[Any]:
        """Gathers the values of all ranks, in rank order. Collective: call it on every rank."""
        if not self.control:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def on_all(self, work: Callable[[], Result]) -> Result:
        """Runs `work` on every rank. Collective: a UserError on one rank ends all of them.

        Raises:
            UserError: on the lowest rank where `work` raised one.
            SystemExit: on the other ranks.
        """
        result: Any = None
        mistake: UserError | None = None
        try:
            result = work()
        except UserError as error:
            mistake = error
        failed = self.all_gather(mistake is not None)
        if any(failed):
            self.leaving = True
            raise mistake if mistake and not any(failed[: self.rank]) else SystemExit(UserError.status)
        return result

    def on_first(self, work: Callable[[], Result]) -> Result:
        """Runs `work` on rank 0 and broadcasts its result. Collective; errors as in `on_all`."""
        result: Any = self.on_all(lambda: work() if self.is_first else None)
        if not self.control:
            return result
        results = [result]
        dist.broadcast_object_list(results, src=0, group=self.control)
        return results[0]

    def exit(self, reason: UserError | Stopped) -> NoReturn:
        """Exits every rank; rank 0 raises `reason`. Call it on every rank."""
        self.leaving = True
        raise reason if self.is_first else SystemExit(reason.status)

    @torch.no_grad()
    def broadcast_weights(self, model: nn.Module) -> None:
        """Copies the parameters and buffers of rank 0 to every rank. Collective: call it on every rank."""
        if self.control:
            for value in (*model.parameters(), *model.buffers()):
                dist.broadcast(value, src=0)

    @torch.no_grad()
    def average_gradients(self, model: nn.Module) -> None:
        """Replaces each gradient by its mean over ranks, and buffers by those of rank 0. Collective.

        Does one all-reduce of all gradients, always in the order of the parameters, so that a resumed run is
        bit-identical. DistributedDataParallel changes the order after its first step, and with three ranks or more the
        order changes the sums. It overlaps the all-reduce with the backward pass, which would gain little here: the
        paper's 2-level network has 8 MB of gradients.
        """
        if not self.control:
            return
        views = [_flat_view(parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
        flat = torch.cat(views).div_(self.world_size)
        dist.all_reduce(flat)
        torch._foreach_copy_(views, flat.split([view.numel() for view in views]))
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)

    def barrier(self) -> None:
        """Waits for every rank."""
        if self.control:
            dist.barrier(group=self.control)


@contextmanager
def join_ranks(device: str) -> Iterator[Ranks]:
    """Context that joins the process group of a torchrun launch; without torchrun there is a single rank.

    The process group is destroyed if all ranks leave together. If one rank fails alone, it exits at once instead, and
    torchrun ends the others. Destroying the group would wait for the collectives that the other ranks are in; with
    NCCL, until its timeout of ten minutes.

    Args:
        device: "auto", "cpu" or "cuda". Each rank takes the CUDA device of its local rank.

    Raises:
        UserError: there is no CUDA device for this rank, or it cannot be used.
    """
    chosen = choose_device(device)
    shared = os.environ.get(SHARED) == "1"
    if not dist.is_torchelastic_launched():
        check_usable(chosen)
        yield Ranks(0, 1, chosen)
        return
    if chosen.type == "cuda":
        local_rank, devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if shared:
            local_rank %= devices
        if local_rank >= devices:
            raise UserError(
                f"{os.environ['LOCAL_WORLD_SIZE']} processes on this machine, but {devices} CUDA devices; "
                f"start torchrun with --nproc-per-node {devices} or less"
            )
        chosen = torch.device("cuda", local_rank)
        check_usable(chosen)
        torch.cuda.set_device(chosen)
    store, rank, world_size = _rendezvous()
    backend = "nccl" if chosen.type == "cuda" and not shared else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    control: Any = dist.new_group(backend="gloo")
    ranks = Ranks(rank, world_size, chosen, control)
    try:
        yield ranks
    except BaseException as error:
        if not ranks.leaving:
            _exit_at_once(error)
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _exit_at_once(error: BaseException) -> NoReturn:
    """Reports an error as the command line does, and ends this process without any clean-up."""
    if isinstance(error, UserError | Stopped):
        status: object = error.status
        log.error("%s", error)
    elif isinstance(error, SystemExit):
        status = error.code
    elif isinstance(error, KeyboardInterrupt):
        status = 128 + signal.SIGINT
    else:
        status = 1
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


def _flat_view(tensor: Tensor) -> Tensor:
    """A one-dimensional view of a dense tensor's values, in memory order."""
    return tensor.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True)).view(-1)


def _rendezvous() -> tuple[dist.Store, int, int]:
    """The rendezvous store, the rank and the world size.

    torchrun uses the same store after a restart, so a rank may read the address of a rank that died (PyTorch issue
    135712). Each process group of each attempt therefore gets its own key prefix. Several machines may count attempts
    differently; there torchrun has to create a store for each attempt: `TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1`.
    """
    store, rank, world_size = next(dist.rendezvous("env://"))
    machines, shared = int(os.environ.get("GROUP_WORLD_SIZE", "1")), os.environ.get("TORCHELASTIC_USE_AGENT_STORE")
    if machines == 1:
        return dist.PrefixStore(f"attempt {_attempt()}, group {next(_groups)}", store), rank, world_size
    if rank == 0 and shared == "True" and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")):
        log.warning("set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun, or its restarts may fail to connect")
    return store, rank, world_size


def launch_name() -> str | None:
    """A unique name of this torchrun launch, the same over its restarts; None without torchrun.

    It is torchrun's --rdzv-id (--standalone makes a random one); without one, the machine and the launching process.
    """
    given = os.environ.get("TORCHELASTIC_RUN_ID")
    return f"{platform.node()}:{os.getppid()}" if given == "none" else given


def _attempt() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
