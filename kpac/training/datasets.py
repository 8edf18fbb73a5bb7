"""Data of a run: batches of training crops, the validation scenes, and a fingerprint of both."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from kpac.config import Config, StageConfig
from kpac.data.cache import DecodedCache, default_folder
from kpac.data.dataset import CropDataset, SceneDataset
from kpac.data.layouts import SceneFiles, find_scenes
from kpac.data.loading import Batches
from kpac.data.preparation import prepare_scenes
from kpac.data.stream import stage_of, training_loader
from kpac.distributed import Ranks
from kpac.environment import usable_cores
from kpac.errors import UserError
from kpac.evaluation.protocols import find_protocol

MOST_WORKERS = 14
CPU_WORKERS = 2


class TrainingData:
    """The training and validation splits of a configuration, decoded and checked.

    Args:
        config: resolved configuration.
        ranks: this rank, and communication with the others.
        views: views that the network reads.

    Raises:
        UserError: a split is missing or empty, an image cannot be used or is smaller than the largest crop, a batch
            size is not divisible by the number of ranks, or a validation image is too small to be scored.
    """

    def __init__(self, config: Config, ranks: Ranks, views: Sequence[str]):
        self.config, self.ranks = config, ranks
        chosen = config.data.workers
        self.workers = default_workers(ranks.device, usable_cores()) if chosen is None else chosen
        self.stages = config.stages
        for index, stage in enumerate(self.stages):
            ranks.check_batch(stage.batch_size, config.train.accumulate, _key(config, index, "batch_size"))
        self.protocol = find_protocol(config.validation.protocol)
        data = config.data
        train, val = (
            find_scenes(data.root, split, views, data.layout, pair_by_order=data.pair_by_order)
            for split in ("train", "val")
        )
        cache = DecodedCache(data.cache or default_folder(data.root))
        train, val = (prepare_scenes(scenes, cache, data.skip_unreadable) for scenes in (train, val))
        self.facts = {"train": describe_scenes(train), "val": describe_scenes(val)}
        largest = max(range(len(self.stages)), key=lambda index: self.stages[index].crop)
        self.crops = CropDataset(
            train, cache, self.stages[largest].crop, data.augment, config.seed, _key(config, largest, "crop")
        )
        self._check_scorable(val, cache)
        self.val = SceneDataset(val, self.protocol.bit_depth, cache)

    def _check_scorable(self, scenes: Sequence[SceneFiles], cache: DecodedCache) -> None:
        for files in scenes:
            height, width = cache.open(files.paths[0]).shape[:2]
            try:
                self.protocol.check_size(height, width)
            except ValueError as error:
                raise UserError(f"{files.paths[0]}: {error}; take it out of the val split") from None

    def stage(self, iteration: int) -> StageConfig:
        """Crop and batch size of an iteration, counted from 1."""
        return stage_of(self.stages, iteration - 1)

    def batches(self, done: int, position: int, pinned: bool) -> Batches:
        """This rank's share of the remaining batches. Starts the data workers; they end with the returned context.

        Args:
            done: number of finished iterations.
            position: number of crops that they used.
            pinned: puts batches in pinned memory, from which a GPU copies faster.
        """
        return training_loader(
            self.crops,
            self.stages,
            steps=(done, self.config.train.iterations),
            position=position,
            workers=self.workers,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
            pin_memory=pinned,
        )

    def scenes_of(self, start: int, size: int) -> str:
        """Names of the scenes in a batch, for error messages; see `kpac.data.batches.Batch`."""
        names = sorted({self.crops.scene(position).name for position in range(start, start + size)})
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return ", ".join(names[:8]) + more


def describe_scenes(scenes: Sequence[SceneFiles]) -> dict[str, Any]:
    """Number of scenes, and a hash of their names and of the names and sizes of their files.

    The hash does not depend on the location of the data set. It reads no pixels, so it does not notice an image that is
    replaced by another of the same file size.
    """
    digest = hashlib.sha256()
    for files in scenes:
        for role, path in {**files.views, "target": files.target}.items():
            assert path  # training needs targets
            digest.update(
                f"{files.name}\0{role}\0{path.name}\0{path.stat().st_size}\n".encode(errors="surrogateescape")
            )
    return {"scenes": len(scenes), "sha256": digest.hexdigest()[:16]}


def default_workers(device: torch.device, cores: int) -> int:
    """Number of data workers for one rank; few on a CPU, where training steps are slow and need the cores."""
    return max(1, min(MOST_WORKERS, cores - 1)) if device.type == "cuda" else CPU_WORKERS


def _key(config: Config, stage: int, name: str) -> str:
    """Key in the configuration of a stage's crop or batch size."""
    if stage < len(config.train.progressive):
        return f"train.progressive.{stage}.{name}"
    return {"crop": "data.crop", "batch_size": "train.batch_size"}[name]
