"""Ranks of a torchrun launch: which one this is, its device, and collective operations."""

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

SHARED = "KPAC_SHARE_GPU"  # 1: ranks may share a GPU, and average gradients through gloo; NCCL refuses. For tests.
_groups = count()  # process groups that this process has joined; every rank joins as many


@dataclass
class Ranks:
    """This rank, and the way to the others.

    Args:
        rank: number of this process; rank 0 writes and prints.
        world_size: number of ranks.
        device: where this rank computes.
        control: gloo group for everything but gradients, so that no GPU has to wait; None without torchrun.
    """

    rank: int
    world_size: int
    device: torch.device
    control: dist.ProcessGroup | None = None
    leaving: bool = field(default=False, init=False)  # every rank has agreed to end

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def check_batch(self, batch_size: int, accumulate: int = 1, key: str = "train.batch_size") -> None:
        """Refuses a global batch that ranks and gradient accumulation do not divide.

        Args:
            batch_size: crops a step, over all ranks.
            accumulate: gradient-accumulation steps per rank.
            key: of the batch size in the configuration.

        Raises:
            UserError: the batch does not divide.
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
        """The values of all ranks, in their order. Collective: call it on every rank."""
        if not self.control:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def on_all(self, work: Callable[[], Result]) -> Result:
        """Runs `work` on every rank. Collective; a UserError on one rank ends all of them.

        Raises:
            UserError: on the first rank that met one.
            SystemExit: on the other ranks then.
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

        One all-reduce of all gradients, always in the order of the parameters. DistributedDataParallel changes that
        order after its first step, so that with three ranks or more a resumed run adds gradients in another order than
        an uninterrupted one, and ends with other bits. Its overlap of the all-reduce with the backward pass would gain
        little here: the paper's 2-level network has 8 MB of gradients.
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
    """Joins the ranks that torchrun started; without torchrun there is one.

    The process group is destroyed where all ranks leave together. A rank that fails alone exits at once instead:
    destroying the group waits for collectives that the other ranks are in, with NCCL for its timeout of ten minutes.
    torchrun then ends the others.

    Args:
        device: "auto", "cpu" or "cuda". Each rank takes the CUDA device of its local rank.

    Raises:
        UserError: no CUDA device for this rank, or it cannot be used.
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
    """Reports an error as the command line does, and ends this process without running anything else."""
    if isinstance(error, UserError | Stopped):
        status: object = error.status
        print(f"kpac: {error}", file=sys.stderr)
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
    """A dense tensor's values in the order of memory, as a view."""
    return tensor.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True)).view(-1)


def _rendezvous() -> tuple[dist.Store, int, int]:
    """The store through which ranks find each other, the rank, and the world size.

    torchrun keeps one store over its restarts, in which a rank may read the address of one that died (PyTorch issue
    135712), so each attempt, and each process group of an attempt, gets a prefix. Over several machines the attempts
    are not counted alike, and torchrun has to make a store for each: `TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1`.
    """
    store, rank, world_size = next(dist.rendezvous("env://"))
    machines, shared = int(os.environ.get("GROUP_WORLD_SIZE", "1")), os.environ.get("TORCHELASTIC_USE_AGENT_STORE")
    if machines == 1:
        return dist.PrefixStore(f"attempt {_attempt()}, group {next(_groups)}", store), rank, world_size
    if rank == 0 and shared == "True" and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")):
        log.warning("start torchrun with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, or its restarts may fail to connect")
    return store, rank, world_size


def launch_name() -> str | None:
    """A name that all restarts of one torchrun launch share, and no other launch has; None without torchrun.

    torchrun's --rdzv-id, where one was given (--standalone draws one); else the machine and the launching process.
    """
    given = os.environ.get("TORCHELASTIC_RUN_ID")
    return f"{platform.node()}:{os.getppid()}" if given == "none" else given


def _attempt() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
