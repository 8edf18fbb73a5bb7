"""The training stream: positions in the crop data set, and crop size, for each step and rank."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset, Sampler

from kpac.config import StageConfig
from kpac.data.batches import PackedBatch
from kpac.data.dataset import CropDataset
from kpac.data.loading import Batches


def stage_of(stages: Sequence[StageConfig], step: int) -> StageConfig:
    """The stage of a step, counted from 0; the last stage has no end."""
    return next((stage for stage in stages[:-1] if step < stage.until), stages[-1])


def training_loader(
    dataset: CropDataset,
    stages: Sequence[StageConfig],
    steps: tuple[int, int],
    position: int | None = None,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Batches:
    """Loads the batches for steps first <= t < last; the batch of step t does not depend on the first step.

    Args:
        dataset: the stream of crops.
        stages: crop and batch sizes. The batch size is over all ranks and a multiple of `world_size`.
        steps: first step, and last step (exclusive).
        position: position of the first step's first crop; by default where the earlier steps of these stages end.
        workers: number of processes that prepare batches.
        rank, world_size: the rank whose share to load, and the number of ranks.
        pin_memory: returns batches in pinned memory.

    Returns:
        An iterator of `kpac.data.batches.PackedBatch`.
    """
    if position is None:
        position = sum(stage_of(stages, step).batch_size for step in range(steps[0]))
    return Batches(
        _CropBatches(dataset),
        workers,
        sampler=_Shares(stages, range(*steps), position, rank, world_size),
        pin_memory=pin_memory,
        generator=torch.Generator(),  # otherwise the loader would use torch's default generator
    )


@dataclass(frozen=True)
class _Share:
    """One rank's share of a step's batch: some of the `size` positions that begin at `start`."""

    start: int
    size: int
    positions: range
    crop: int


class _Shares(Sampler[_Share]):
    """Sampler that yields one rank's share of each step's batch."""

    def __init__(self, stages: Sequence[StageConfig], steps: range, position: int, rank: int, world_size: int):
        self.stages = stages
        self.steps = steps
        self.position = position
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[_Share]:
        start = self.position
        for step in self.steps:
            stage = stage_of(self.stages, step)
            end = start + stage.batch_size
            yield _Share(start, stage.batch_size, range(start, end)[self.rank :: self.world_size], stage.crop)
            start = end


class _CropBatches(Dataset):
    def __init__(self, crops: CropDataset):
        self.crops = crops

    def __getitem__(self, share: _Share) -> PackedBatch:
        crops = [self.crops[position, share.crop] for position in share.positions]
        return PackedBatch.pack(crops, share.start, share.size)
