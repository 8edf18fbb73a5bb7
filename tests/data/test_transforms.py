"""A crop is changed as the configuration says, all images of its scene alike, and the same at each visit."""

import cv2
import numpy as np
import pytest
import torch

from kpac.config import AugmentConfig, StageConfig
from kpac.data.cache import DecodedCache
from kpac.data.dataset import CropDataset
from kpac.data.layouts import find_scenes
from kpac.data.stream import training_loader
from kpac.data.synthesis.optics import Aperture, render_view
from kpac.data.transforms import Augmentation, as_float
from kpac.errors import UserError
from kpac.images import read_pixels, to_float, write_pixels
from tests.conftest import unpacked

CPU = torch.device("cpu")
DUAL = ("center", "left", "right")
SCALE = {"range": [0.7, 1.0], "probability": 0.5}
NOISE = {"deviation": [0.02, 0.08], "probability": 0.5}
GEOMETRY = {"flip": True, "rotate": True, "scale": SCALE}
ALL = AugmentConfig(**GEOMETRY, gray=0.3, noise=NOISE)
ALL_DUAL = ALL.model_copy(update={"rotate": False})


def draws(count: int, augment: AugmentConfig, height: int = 100, width: int = 120, size: int = 40):
    return [Augmentation.draw(height, width, size, augment, np.random.default_rng((7, seed))) for seed in range(count)]


def coordinates(height: int, width: int) -> np.ndarray:
    """An image in which each pixel says where it is."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint16)


def crops(root, cache, augment: AugmentConfig, views=("center",), seed: int = 1) -> CropDataset:
    return CropDataset(find_scenes(root, "train", views), DecodedCache(cache), 32, augment, seed)


@pytest.fixture
def coordinate_root(tmp_path):
    """A data set whose views and targets are all the same coordinate image."""
    for folder in ("train_c/source", "train_l/source", "train_r/source", "train_c/target"):
        write_pixels(tmp_path / "set" / folder / "a.png", coordinates(60, 70) * 800)
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("augment", "views"), [(AugmentConfig(**GEOMETRY), ("center",)), (AugmentConfig(flip=True, scale=SCALE), DUAL)]
)
def test_all_views_and_the_target_move_together(coordinate_root, tmp_path, augment, views):
    dataset = crops(coordinate_root, tmp_path / "cache", augment, views)
    samples = [unpacked(dataset[position]) for position in range(40)]
    for sample in samples:
        assert torch.equal(sample["views"], sample["target"].repeat(len(views), 1, 1))
    assert len({sample["target"].numpy().tobytes() for sample in samples}) == 40


@pytest.mark.parametrize(
    ("augment", "count"),
    [({}, 1), ({"flip": True}, 4), ({"rotate": True}, 4), ({"flip": True, "rotate": True}, 8)],
)
def test_every_orientation_comes_as_often_as_any_other(augment, count):
    image = coordinates(40, 40)
    found = [as_float(drawn.cut(image)).tobytes() for drawn in draws(1600, AugmentConfig(**augment), 40, 40)]
    orientations = [np.rot90(side, turns) for side in (image, image[:, ::-1]) for turns in range(4)]
    assert set(found) <= {to_float(orientation).tobytes() for orientation in orientations}
    shares = [found.count(one) / len(found) for one in set(found)]
    np.testing.assert_allclose(shares, [1 / count] * count, atol=0.04)


def test_crops_lie_everywhere_and_never_outside():
    found = draws(3000, AugmentConfig())
    assert {drawn.top for drawn in found} == set(range(61))
    assert {drawn.left for drawn in found} == set(range(81))
    scaled = draws(3000, AugmentConfig(scale={"range": [0.7, 0.7], "probability": 1}))
    assert {drawn.region for drawn in scaled} == {57}
    assert {drawn.top for drawn in scaled} == set(range(44))
    assert {drawn.left for drawn in scaled} == set(range(64))


@pytest.mark.parametrize(
    ("drawn", "turn"),
    [
        (Augmentation(0, 0, 21, 21, mirror=True), lambda image: image[:, ::-1]),
        (Augmentation(0, 0, 21, 21, flip=True), lambda image: image[::-1]),
        (Augmentation(0, 0, 21, 21, mirror=True, flip=True), lambda image: image[::-1, ::-1]),
        (Augmentation(0, 0, 21, 21, quarter_turns=2), lambda image: image[::-1, ::-1]),
        (Augmentation(0, 0, 21, 21, mirror=True, quarter_turns=2), lambda image: image[::-1]),
    ],
    ids=["mirrored", "flipped", "both", "turned by 180 degrees", "mirrored and turned"],
)
@pytest.mark.parametrize(("size", "turns"), [((21, 30), 0), ((30, 21), 1)], ids=["landscape", "portrait"])
def test_changed_scene_is_the_scene_that_a_changed_world_gives(drawn, turn, size, turns):
    """A point behind the plane in focus moves left in the left view; it must do so after mirroring and turning, too."""
    photo = np.zeros((21, 21, 3), np.float32)
    photo[8, 6] = 1

    def taken(scene: np.ndarray) -> dict[str, np.ndarray]:
        """By a camera that is turned for portrait photographs."""
        radius = np.full((21, 21), 3.0, np.float32)
        views = {
            side: render_view(np.rot90(scene, turns).copy(), radius, Aperture(), side) for side in ("left", "right")
        }
        return {side: np.rot90(view, -turns) for side, view in views.items()}

    views, world = taken(photo), taken(turn(photo))
    assert np.abs(views["left"] - views["right"]).max() > 0.01
    for side, source in zip(("left", "right"), drawn.order(("left", "right"), *size), strict=True):
        pixels = np.rint(views[source] * 65535).astype(np.uint16)
        np.testing.assert_allclose(as_float(drawn.view(pixels, 0)), world[side], atol=1e-5)


def test_dual_pixel_views_are_read_in_the_places_of_each_other_when_mirrored(data_root, tmp_path):
    dataset = crops(data_root, tmp_path / "cache", AugmentConfig(flip=True), DUAL)
    images = {files.name: {view: read_pixels(path) for view, path in files.views.items()} for files in dataset.scenes}
    mirrored = 0
    for position in range(20):
        generator = np.random.default_rng((1, 1, position))
        drawn = Augmentation.draw(80, 112, 32, dataset.augment, generator)
        crop = dataset[position]
        order = DUAL if not drawn.mirror else ("center", "right", "left")
        expected = [drawn.cut(images[crop.name][view]) for view in order]
        np.testing.assert_array_equal(crop.views, expected)
        mirrored += drawn.mirror
    assert 0 < mirrored < 20


def test_quarter_turns_are_refused_for_dual_pixel_views(data_root, tmp_path):
    with pytest.raises(
        UserError, match=r"data\.augment\.rotate: .* left and right views along .* shorter side.* false"
    ) as error:
        crops(data_root, tmp_path / "cache", AugmentConfig(rotate=True), DUAL)
    assert "\n" not in str(error.value)


def test_mirroring_is_refused_where_the_other_view_is_not_read(data_root, tmp_path):
    with pytest.raises(UserError, match=r"data\.augment\.flip: mirroring makes a left view a right one.* false"):
        crops(data_root, tmp_path / "cache", AugmentConfig(flip=True), ("center", "left"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_scaled_crop_is_the_area_average_of_its_whole_region(dtype):
    image = np.random.default_rng(0).integers(np.iinfo(dtype).max + 1, size=(100, 120, 3)).astype(dtype)
    found = draws(60, AugmentConfig(scale={"range": [0.5, 1.0], "probability": 1}))
    assert {drawn.region for drawn in found} <= set(range(40, 81))
    assert len({drawn.region for drawn in found}) > 20
    for drawn in found:
        region = image[drawn.top : drawn.top + drawn.region, drawn.left : drawn.left + drawn.region]
        expected = cv2.resize(to_float(region), (40, 40), interpolation=cv2.INTER_AREA)
        cut = as_float(drawn.cut(image))
        np.testing.assert_allclose(cut, expected, atol=2e-7)
        np.testing.assert_allclose(cut.mean(), to_float(region).mean(), atol=1e-5)


@pytest.mark.parametrize("gray", [False, True])
def test_white_stays_in_range(gray):
    white = np.full((96, 96, 3), 65535, np.uint16)
    for region in range(33, 97):  # for 45 and some others, OpenCV averages ones to more than 1
        image = as_float(Augmentation(0, 0, region, 32, gray=gray).target(white))
        assert image.max() <= 1
        np.testing.assert_allclose(image, 1, atol=1e-6)


def test_image_too_small_for_the_region_is_scaled_less():
    scale = {"range": [0.1, 0.1], "probability": 1}
    found = draws(100, AugmentConfig(scale=scale), height=50, width=70)
    assert {drawn.region for drawn in found} == {50}
    assert {drawn.top for drawn in found} == {0}
    assert {drawn.left for drawn in found} == set(range(21))
    assert found[0].cut(coordinates(50, 70)).shape == (40, 40, 3)


def test_cut_reads_no_pixel_outside_of_its_region():
    class Watched(np.ndarray):
        """Remembers what was taken of it."""

        def __getitem__(self, key):
            taken.append(key)
            return np.asarray(self)[key]

    taken: list = []
    drawn = draws(1, AugmentConfig(scale={"range": [0.8, 0.8], "probability": 1}))[0]
    drawn.view(coordinates(100, 120).view(Watched), 0)
    assert taken == [(slice(drawn.top, drawn.top + 50), slice(drawn.left, drawn.left + 50))]


def test_gray_has_equal_channels_and_the_same_weights_in_views_and_target():
    image = np.random.default_rng(0).integers(65536, size=(40, 40, 3)).astype(np.uint16)
    drawn = Augmentation(0, 0, 40, 40, gray=True)
    luma = to_float(image) @ np.array([0.2126, 0.7152, 0.0722])
    for gray in (drawn.view(image, 0), drawn.view(image, 1), drawn.target(image)):
        np.testing.assert_allclose(gray, np.repeat(luma[..., None], 3, axis=-1), atol=1e-6)
    noisy = Augmentation(0, 0, 40, 40, gray=True, deviation=0.1).view(image, 0)
    assert np.array_equal(noisy[..., 0], noisy[..., 1])
    assert np.array_equal(noisy[..., 0], noisy[..., 2])


@pytest.mark.parametrize("region", [128, 160])
def test_noise_is_on_the_views_alone_each_its_own_with_the_stated_deviation(region):
    flat = np.full((region, region, 3), 32768, np.uint16)
    drawn = Augmentation(0, 0, region, 128, deviation=0.05, noise_seed=3)
    target = as_float(drawn.target(flat))
    np.testing.assert_allclose(target, 32768 / 65535, atol=1e-6)
    noise = np.stack([drawn.view(flat, index) - target for index in range(3)]).reshape(3, -1)
    np.testing.assert_allclose(noise.std(axis=1), 0.05, rtol=0.02)
    np.testing.assert_allclose(noise.mean(axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(np.corrcoef(noise), np.eye(3), atol=0.02)


def test_noise_leaves_the_range_of_images():
    drawn = Augmentation(0, 0, 32, 32, deviation=0.5)
    for value in (0, 65535):
        image = drawn.view(np.full((32, 32, 3), value, np.uint16), 0)
        assert (image.min(), image.max()) == (0, 1)


def test_noise_of_crops_reaches_the_network_and_not_the_target(coordinate_root, tmp_path):
    noise = {"deviation": [0.05, 0.05], "probability": 1}
    both = AugmentConfig(), AugmentConfig(noise=noise)
    clean, noisy = (unpacked(crops(coordinate_root, tmp_path / "cache", augment, DUAL)[5]) for augment in both)
    assert torch.equal(noisy["target"], clean["target"])
    difference = (noisy["views"] - clean["views"]).view(3, 3, 32, 32)[:, :2]  # the third channel is black, and clipped
    assert torch.all((difference.std(dim=(1, 2, 3)) - 0.05).abs() < 0.006)
    assert not torch.equal(difference[0], difference[1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_everything_off_gives_the_files_bits(tmp_path, dtype):
    image = np.random.default_rng(0).integers(np.iinfo(dtype).max + 1, size=(50, 60, 3)).astype(dtype)
    for folder in ("source", "target"):
        write_pixels(tmp_path / "train_c" / folder / "a.png", image)
    dataset = crops(tmp_path, tmp_path / "cache", AugmentConfig())
    places = np.lib.stride_tricks.sliding_window_view(to_float(image), (32, 32), axis=(0, 1))
    for position in range(20):
        sample = unpacked(dataset[position])
        assert torch.equal(sample["views"], sample["target"])
        assert (places == sample["target"].numpy()).all(axis=(2, 3, 4)).sum() == 1


def test_probabilities_come_out_as_stated():
    found = draws(4000, AugmentConfig(**GEOMETRY, gray=0.3, noise={"deviation": [0.02, 0.08], "probability": 0.05}))
    shares = [
        np.mean([drawn.mirror for drawn in found]),
        np.mean([drawn.flip for drawn in found]),
        np.mean([drawn.gray for drawn in found]),
        np.mean([drawn.deviation > 0 for drawn in found]),
        np.mean([drawn.region > 40 for drawn in found]),
    ]
    np.testing.assert_allclose(shares, [0.5, 0.5, 0.3, 0.05, 0.5 * 0.98], atol=0.03)  # 2 % of scales round to none
    deviations = [drawn.deviation for drawn in found if drawn.deviation]
    assert 0.02 <= min(deviations) < 0.025 < 0.075 < max(deviations) <= 0.08
    scales = [drawn.size / drawn.region for drawn in found if drawn.region > 40]
    assert 0.69 < min(scales) < 0.72
    np.testing.assert_allclose(np.mean(scales), 0.85, atol=0.01)


def test_off_never_happens():
    plain = {(drawn.mirror, drawn.flip, drawn.quarter_turns, drawn.gray, drawn.deviation, drawn.region)
             for drawn in draws(500, AugmentConfig())}  # fmt: skip
    assert plain == {(False, False, 0, False, 0.0, 40)}
    never = AugmentConfig(gray=0, scale=SCALE | {"probability": 0}, noise=NOISE | {"probability": 0})
    assert draws(500, never) == draws(500, AugmentConfig())


@pytest.mark.parametrize("key", ["flip", "rotate", "gray", "noise"])
def test_one_augmentation_leaves_the_draws_of_the_others_as_they_were(key):
    fields = {"flip": {"mirror", "flip"}, "rotate": {"quarter_turns"}, "gray": {"gray"}, "noise": {"deviation"}}[key]
    without = ALL.model_copy(update={key: getattr(AugmentConfig(), key)})
    for drawn, other in zip(draws(200, ALL), draws(200, without), strict=True):
        differing = {name for name in vars(drawn) if getattr(drawn, name) != getattr(other, name)}
        assert differing <= fields


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("augment", "views"), [(ALL, ("center",)), (ALL_DUAL, DUAL)], ids=["single", "dual"])
def test_workers_and_resuming_do_not_change_the_stream(data_root, tmp_path, workers, augment, views):
    stages = [StageConfig(until=6, crop=32, batch_size=4)]
    whole = list(training_loader(crops(data_root, tmp_path / "cache", augment, views), stages, (0, 6), workers=1))
    resumed = training_loader(crops(data_root, tmp_path / "cache", augment, views), stages, (2, 6), workers=workers)
    for before, after in zip(whole[2:], resumed, strict=True):
        before, after = before.unpack(CPU), after.unpack(CPU)
        assert torch.equal(before.views, after.views)
        assert torch.equal(before.target, after.target)
        assert (before.start, before.size) == (after.start, after.size)


def test_draw_depends_on_the_seed_and_the_position_alone(data_root, tmp_path):
    dataset = crops(data_root, tmp_path / "cache", ALL)
    backwards = {position: unpacked(dataset[position])["views"] for position in reversed(range(12))}
    other = crops(data_root, tmp_path / "cache", ALL, seed=2)
    for position in range(12):
        assert torch.equal(unpacked(dataset[position])["views"], backwards[position])
        assert not torch.equal(backwards[position], unpacked(other[position])["views"])
