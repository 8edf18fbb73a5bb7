"""Scenes as tensors: whole for evaluation, cropped for training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from kpac.data.cache import DecodedCache
from kpac.data.images import BitDepth, bits, read_pixels, to_float
from kpac.data.layouts import SceneFiles
from kpac.data.transforms import Geometry
from kpac.data.workers import leave_interrupts_to_the_parent
from kpac.errors import UserError


@dataclass(frozen=True)
class Scene:
    """One sample.

    Args:
        name: of the scene.
        views: (3V, H, W), RGB in [0, 1], the V views in the order that was asked for.
        target: (3, H, W), RGB in [0, 1].
        bit_depth: of the files that it was read from.
    """

    name: str
    views: Tensor
    target: Tensor
    bit_depth: BitDepth


class SceneDataset(Dataset):
    """Whole scenes, decoded on access.

    Args:
        scenes: from `kpac.data.layouts.find_scenes`.
        bit_depth: reads every file at this depth; None keeps the files' own. See `kpac.data.images.read_pixels`.
    """

    def __init__(self, scenes: Sequence[SceneFiles], bit_depth: BitDepth | None = None):
        self.scenes = scenes
        self.bit_depth = bit_depth

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Scene:
        files = self.scenes[index]
        images = [read_pixels(path, self.bit_depth) for path in files.paths]
        for path, image in zip(files.paths, images, strict=True):
            check_size(path, image, files.paths[0], images[0])
        *views, target = [_to_tensor(image) for image in images]
        return Scene(files.name, torch.cat(views), target, bits(images[0]))


class CropDataset(Dataset):
    """An endless stream of training crops, addressed by position.

    The crop at a position depends on the seed and the position alone: not on the number of workers or devices, nor on
    where a training was interrupted. Every scene comes once before any comes twice, in an order drawn anew each time.

    Args:
        scenes: from `kpac.data.layouts.find_scenes`.
        cache: holds the decoded images.
        crop: side of the crops, in pixels.
        flip: mirrors at random, left-right and top-bottom.
        seed: fixes the stream.

    Raises:
        UserError: an image is smaller than the crop, or the images of a scene differ in size.
    """

    def __init__(self, scenes: Sequence[SceneFiles], cache: DecodedCache, crop: int, flip: bool, seed: int):
        self.scenes = scenes
        self.cache = cache
        self.crop = crop
        self.flip = flip
        self.seed = seed
        cache.prepare([path for files in scenes for path in files.paths])
        for files in scenes:
            images = [cache.open(path) for path in files.paths]
            for path, image in zip(files.paths, images, strict=True):
                check_size(path, image, files.paths[0], images[0])
            height, width = images[0].shape[:2]
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
        geometry = Geometry.draw(*target.shape[:2], self.crop, self.flip, generator)
        views = [self.cache.open(files.views[view]) for view in geometry.order(list(files.views))]
        return {
            "views": torch.cat([_to_tensor(geometry.apply(view)) for view in views]),
            "target": _to_tensor(geometry.apply(target)),
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


def check_size(path: object, image: np.ndarray, first_path: object, first: np.ndarray) -> None:
    """Refuses a scene whose images differ in size, naming both files."""
    if image.shape != first.shape:
        found, expected = (f"{array.shape[1]}x{array.shape[0]}" for array in (image, first))
        raise UserError(f"{path}: is {found}, but {first_path} of the same scene is {expected}")


@lru_cache(maxsize=2)
def _order(seed: int, round_: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, round_)).permutation(count)


def _to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(to_float(pixels).transpose(2, 0, 1)))
