"""Data sets of scenes as tensors: whole images for evaluation, crops for training."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kpac.config import AugmentConfig
from kpac.data.cache import DecodedCache
from kpac.data.layouts import SceneFiles
from kpac.data.preparation import require_equal_sizes
from kpac.data.transforms import OTHER_SIDE, Augmentation
from kpac.errors import UserError
from kpac.images import BitDepth, at_depth, bits, read_pixels, to_float


@dataclass(frozen=True)
class Scene:
    """One sample."""

    name: str
    views: Tensor  # (3V, H, W), RGB in [0, 1], the V views in the requested order
    target: Tensor | None  # (3, H, W), RGB in [0, 1]; None in sets without targets
    bit_depth: BitDepth  # bit depth of the files
    group: str | None = None  # "indoor" or "outdoor" if the set is labelled


@dataclass(frozen=True)
class Crop:
    """One training crop."""

    name: str  # name of its scene
    views: tuple[np.ndarray, ...]  # (crop, crop, 3) RGB each: the file's integers, or float32 in [0, 1] if augmented
    target: np.ndarray  # the same for the target


class SceneDataset(Dataset):
    """Whole scenes, read on access.

    Args:
        scenes: from `kpac.data.layouts.find_scenes`.
        bit_depth: converts every file to this depth; None keeps the files' own. See `kpac.images.read_pixels`.
        cache: cache of decoded images; without one, each access decodes the files.
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
        """Reads the scene at an index.

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
    """An endless stream of training crops, indexed by position.

    The crop at a position depends only on the seed and the position, not on the number of workers or devices, nor on
    where a training was interrupted. Each pass goes through all scenes once, in a new random order.

    Args:
        scenes: from `kpac.data.preparation.prepare_scenes`.
        cache: cache of decoded images.
        crop: side of the largest crops, in pixels.
        augment: the random augmentations.
        seed: seed of the stream.
        crop_key: configuration key of the crop size, for messages.

    Raises:
        UserError: an image is smaller than the crop, or an augmentation does not suit the views.
    """

    def __init__(
        self,
        scenes: Sequence[SceneFiles],
        cache: DecodedCache,
        crop: int,
        augment: AugmentConfig,
        seed: int,
        crop_key: str = "data.crop",
    ):
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
                    f"expected at least {crop}x{crop}. Set {crop_key} to {min(height, width)} or less"
                )

    def scene(self, position: int) -> SceneFiles:
        """The scene of the crop at a position."""
        round_, place = divmod(position, len(self.scenes))
        return self.scenes[_order(self.seed, round_, len(self.scenes))[place]]

    def __getitem__(self, place: int | tuple[int, int]) -> Crop:
        """The crop at a position.

        Args:
            place: the position; or the position and a side in pixels, for a crop smaller than `crop`.
        """
        position, crop = place if isinstance(place, tuple) else (place, self.crop)
        files = self.scene(position)
        generator = np.random.default_rng((self.seed, 1, position))
        assert files.target  # training needs targets
        target = self.cache.open(files.target)
        height, width = size = target.shape[:2]
        drawn = Augmentation.draw(height, width, crop, self.augment, generator)
        views = [self.cache.open(files.views[view]) for view in drawn.order(list(files.views), *size)]
        return Crop(
            files.name, tuple(drawn.view(view, index) for index, view in enumerate(views)), drawn.target(target)
        )


@lru_cache(maxsize=2)
def _order(seed: int, round_: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, round_)).permutation(count)


def _check_views(views: Sequence[str], augment: AugmentConfig) -> None:
    """Raises a UserError for augmentations that would make impossible dual-pixel views."""
    sides = [view for view in views if view in OTHER_SIDE]
    if augment.rotate and sides:
        raise UserError(
            f"data.augment.rotate: a quarter turn puts the disparity of {' and '.join(sides)} views along the shorter "
            "side, which no camera does; set it to false. data.augment.flip includes half turns"
        )
    if augment.flip and len(sides) == 1:
        raise UserError(
            f"data.augment.flip: mirroring makes a {sides[0]} view a {OTHER_SIDE[sides[0]]} one, which this network "
            "does not read; set it to false"
        )


def _to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
