"""Several processes under torchrun, or one: ranks, devices and the few collectives that the loop needs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kpac.environment import choose_device
from kpac.errors import UserError


@dataclass(frozen=True)
class Processes:
    """This process among all that train together.

    Args:
        rank: number of this process, 0 writes and prints.
        world_size: number of processes.
        device: where this process computes.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def check_batch(self, batch_size: int) -> None:
        """Refuses a global batch that the processes cannot share evenly.

        Raises:
            UserError: the batch does not divide.
        """
        if batch_size % self.world_size:
            raise UserError(
                f"train.batch_size: {batch_size} does not divide among {self.world_size} processes; "
                f"expected a multiple of {self.world_size}"
            )

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a value over the processes; every one of them must ask."""
        if self.world_size > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.world_size
        return value

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model, wrapped so that gradients are averaged over the processes."""
        if self.world_size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)

    def barrier(self) -> None:
        """Waits until every process is here."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Joins the processes that torchrun started; without torchrun there is one.

    Args:
        device: "auto", "cpu" or "cuda". Each process of a machine takes the CUDA device of its local rank.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device)
    if world_size == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), world_size, chosen)
    finally:
        dist.destroy_process_group()
