"""Scenes as tensors: whole for evaluation, cropped for training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from kpac.config import AugmentConfig
from kpac.data.cache import DecodedCache
from kpac.data.images import BitDepth, at_depth, bits, read_pixels, to_float
from kpac.data.layouts import SceneFiles
from kpac.data.preparation import require_equal_sizes
from kpac.data.transforms import OTHER_SIDE, Augmentation
from kpac.data.workers import leave_interrupts_to_the_parent
from kpac.errors import UserError


@dataclass(frozen=True)
class Scene:
    """One sample.

    Args:
        name: of the scene.
        views: (3V, H, W), RGB in [0, 1], the V views in the order that was asked for.
        target: (3, H, W), RGB in [0, 1]; None in sets without targets.
        bit_depth: of the files that it was read from.
        group: "indoor" or "outdoor" where the set says so.
    """

    name: str
    views: Tensor
    target: Tensor | None
    bit_depth: BitDepth
    group: str | None = None


class SceneDataset(Dataset):
    """Whole scenes, read on access.

    Args:
        scenes: from `kpac.data.layouts.find_scenes`.
        bit_depth: reads every file at this depth; None keeps the files' own. See `kpac.data.images.read_pixels`.
        cache: holds the decoded images, so that they need not be decoded at each access; None for none.
    """

    def __init__(
        self, scenes: Sequence[SceneFiles], bit_depth: BitDepth | None = None, cache: DecodedCache | None = None
    ):
        self.scenes = scenes
        self.bit_depth = bit_depth
        self.cache = cache

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Scene:
        """The scene at an index.

        Raises:
            UserError: an image cannot be read, or differs in size from the scene's first one.
        """
        files = self.scenes[index]
        images = [self._read(path) for path in files.paths]
        for path, image in zip(files.paths, images, strict=True):
            require_equal_sizes(path, image.shape, files.paths[0], images[0].shape)
        tensors = [_to_tensor(to_float(np.rot90(image, files.quarter_turns))) for image in images]
        target = tensors.pop() if files.target else None
        return Scene(files.name, torch.cat(tensors), target, bits(images[0]), files.group)

    def _read(self, path: Path) -> np.ndarray:
        return (
            at_depth(self.cache.open(path), path, self.bit_depth) if self.cache else read_pixels(path, self.bit_depth)
        )


class CropDataset(Dataset):
    """An endless stream of training crops, addressed by position.

    The crop at a position depends on the seed and the position alone: not on the number of workers or devices, nor on
    where a training was interrupted. Every scene comes once before any comes twice, in an order drawn anew each time.

    Args:
        scenes: from `kpac.data.preparation.prepare_scenes`.
        cache: holds the decoded images.
        crop: side of the crops, in pixels.
        augment: what is changed at random.
        seed: fixes the stream.

    Raises:
        UserError: an image is smaller than the crop, or the views do not admit an augmentation.
    """

    def __init__(self, scenes: Sequence[SceneFiles], cache: DecodedCache, crop: int, augment: AugmentConfig, seed: int):
        self.scenes = scenes
        self.cache = cache
        self.crop = crop
        self.augment = augment
        self.seed = seed
        for views in {tuple(files.views) for files in scenes}:
            _check_views(views, augment)
        for files in scenes:
            height, width = cache.open(files.paths[0]).shape[:2]
            if min(height, width) < crop:
                raise UserError(
                    f"{files.paths[0]}: is {width}x{height}, smaller than the training crop; "
                    f"expected at least {crop}x{crop}. Set data.crop to {min(height, width)} or less"
                )

    def __getitem__(self, position: int) -> dict[str, Tensor | str]:
        """The crop at a position: "views" (3V, crop, crop), "target" (3, crop, crop), and the scene's "name"."""
        round_, place = divmod(position, len(self.scenes))
        files = self.scenes[_order(self.seed, round_, len(self.scenes))[place]]
        generator = np.random.default_rng((self.seed, 1, position))
        target = self.cache.open(files.target)
        size = target.shape[:2]
        drawn = Augmentation.draw(*size, self.crop, self.augment, generator)
        views = [self.cache.open(files.views[view]) for view in drawn.order(list(files.views), *size)]
        return {
            "views": torch.cat([_to_tensor(drawn.view(view, index)) for index, view in enumerate(views)]),
            "target": _to_tensor(drawn.target(target)),
            "name": files.name,
        }


class _Batches(Sampler[list[int]]):
    """Positions of one device's share of each step's batch."""

    def __init__(self, first: int, last: int, batch_size: int, rank: int, world_size: int):
        self.steps = range(first, last)
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            yield list(range(step * self.batch_size, (step + 1) * self.batch_size))[self.rank :: self.world_size]


def training_loader(
    dataset: CropDataset,
    batch_size: int,
    steps: tuple[int, int],
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> DataLoader:
    """Batches of crops for the steps first <= t < last; the batch of step t is the same wherever the loader starts.

    Args:
        dataset: the stream.
        batch_size: crops a step over all devices together; a multiple of `world_size`.
        steps: first and last, exclusive.
        workers: processes that prepare batches.
        rank, world_size: this device among all.
        pin_memory: places batches in memory that a GPU copies from quickly.
    """
    batches = _Batches(*steps, batch_size, rank, world_size)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=leave_interrupts_to_the_parent,
    )


@lru_cache(maxsize=2)
def _order(seed: int, round_: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, round_)).permutation(count)


def _check_views(views: Sequence[str], augment: AugmentConfig) -> None:
    """Refuses what would show a network dual-pixel views that no camera takes."""
    sides = [view for view in views if view in OTHER_SIDE]
    if augment.rotate and sides:
        raise UserError(
            f"data.augment.rotate: a quarter turn moves the disparity of {' and '.join(sides)} views to the image's "
            "shorter side, where no camera has it; set it to false. data.augment.flip gives half turns, too"
        )
    if augment.flip and len(sides) == 1:
        raise UserError(
            f"data.augment.flip: mirrored, a {sides[0]} view is a {OTHER_SIDE[sides[0]]} one, which this network does "
            "not read; set it to false"
        )


def _to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
