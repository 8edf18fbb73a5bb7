"""Scenes and crops are what the files hold, in an order that a seed fixes."""

import cv2
import numpy as np
import pytest
import torch

from kpac.config import AugmentConfig, StageConfig
from kpac.data.cache import DecodedCache
from kpac.data.dataset import CropDataset, SceneDataset
from kpac.data.layouts import find_scenes
from kpac.data.stream import training_loader
from kpac.errors import UserError
from kpac.images import read_pixels, to_float, write_pixels
from tests.conftest import unpacked

CPU = torch.device("cpu")
DUAL = ("center", "left", "right")
FLIP = AugmentConfig(flip=True)
STAGES = [StageConfig(until=2, crop=16, batch_size=6), StageConfig(until=5, crop=32, batch_size=4)]


@pytest.fixture
def crops(data_root, tmp_path) -> CropDataset:
    return CropDataset(find_scenes(data_root, "train", DUAL), DecodedCache(tmp_path / "cache"), 32, FLIP, seed=1)


def test_whole_scene_holds_the_files_16_bits(data_root):
    files = find_scenes(data_root, "test", DUAL)
    scene = SceneDataset(files)[0]
    assert (scene.bit_depth, scene.views.shape[0], scene.views.dtype) == (16, 9, torch.float32)
    right = to_float(read_pixels(files[0].views["right"]))
    np.testing.assert_array_equal(scene.views[6:].permute(1, 2, 0), right)
    assert not torch.equal(scene.target * 255, (scene.views[:3] * 255).round())
    assert SceneDataset(files, bit_depth=8)[0].bit_depth == 8


def test_crop_depends_on_seed_and_position_alone(crops, data_root, tmp_path):
    again = CropDataset(crops.scenes, DecodedCache(tmp_path / "other"), 32, FLIP, seed=1)
    other = CropDataset(crops.scenes, DecodedCache(tmp_path / "other"), 32, FLIP, seed=2)
    assert np.array_equal(crops[123].views, again[123].views)
    assert not np.array_equal(crops[123].views, other[123].views)


def test_every_scene_comes_once_a_round(crops):
    count = len(crops.scenes)
    names = [crops[position].name for position in range(2 * count)]
    assert len(set(names[:count])) == len(set(names[count:])) == count
    assert names[:count] != names[count:]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_for_any_workers_start_and_number_of_devices(crops, workers):
    whole = [batch.unpack(CPU).target for batch in training_loader(crops, STAGES, (0, 5), workers=0)]
    resumed = [batch.unpack(CPU).target for batch in training_loader(crops, STAGES, (3, 5), workers=workers)]
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], resumed, strict=True))
    halves = [training_loader(crops, STAGES, (0, 5), workers=workers, rank=rank, world_size=2) for rank in (0, 1)]
    for batch, first, second in zip(whole, *halves, strict=True):
        assert torch.equal(batch[0::2], first.unpack(CPU).target)
        assert torch.equal(batch[1::2], second.unpack(CPU).target)


def test_stages_have_their_own_crops_and_batches_and_use_up_one_stream(crops):
    batches = [batch.unpack(CPU) for batch in training_loader(crops, STAGES, (0, 4))]
    assert [tuple(batch.target.shape) for batch in batches] == [(6, 3, 16, 16)] * 2 + [(4, 3, 32, 32)] * 2
    assert [(batch.start, batch.size) for batch in batches] == [(0, 6), (6, 6), (12, 4), (16, 4)]
    moved = next(training_loader(crops, STAGES, (3, 4), position=7)).unpack(CPU)
    assert (moved.start, moved.size) == (7, 4)
    for place in range(4):
        assert torch.equal(moved.target[place], unpacked(crops[7 + place])["target"])


def test_photo_smaller_than_the_crop_is_named(data_root, tmp_path):
    with pytest.raises(UserError, match=r"is 112x80, smaller than the training crop; .* data.crop to 80"):
        CropDataset(find_scenes(data_root, "train"), DecodedCache(tmp_path), 96, AugmentConfig(), seed=0)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bit_depth", [None, 8, 16])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cached_scene_is_the_decoded_one_to_the_bit(tmp_path, suffix, bit_depth, dtype):
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(16, -1)
    write_pixels(tmp_path / f"a{suffix}", np.stack([values, values[::-1], values[:, ::-1]], axis=-1))
    files = find_scenes(tmp_path, "test", targets=False)
    cached = SceneDataset(files, bit_depth, DecodedCache(tmp_path / "cache"))[0]
    direct = SceneDataset(files, bit_depth)[0]
    assert torch.equal(cached.views, direct.views)
    assert cached.bit_depth == direct.bit_depth


def test_scene_without_target_has_none(tmp_path):
    write_pixels(tmp_path / "a.jpg", np.zeros((8, 9, 3), np.uint8))
    scene = SceneDataset(find_scenes(tmp_path, "test", targets=False))[0]
    assert scene.target is None
    assert scene.views.shape == (3, 8, 9)


def test_phone_dual_pixel_views_come_upright_in_three_equal_channels(tmp_path):
    views = np.arange(6, dtype=np.uint16).reshape(2, 3) * 1000
    for index, view in enumerate("clr"):
        (tmp_path / "PixelDP" / f"test_{view}").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "PixelDP" / f"test_{view}" / "a.png"), views + index)
    scene = SceneDataset(find_scenes(tmp_path, "test", DUAL, targets=False))[0]
    assert scene.views.shape == (9, 3, 2)
    for channel in range(9):
        expected = to_float(np.rot90(views) + np.uint16(channel // 3))
        np.testing.assert_array_equal(scene.views[channel], expected)


def test_whole_scene_whose_images_differ_in_size_is_refused(tmp_path):
    for folder, width in (("source", 8), ("target", 9)):
        write_pixels(tmp_path / folder / "a.png", np.zeros((8, width, 3), np.uint16))
    with pytest.raises(UserError, match=r"target/a.png: is 9x8, but .*source/a.png of the same scene is 8x8"):
        SceneDataset(find_scenes(tmp_path, "test"))[0]
