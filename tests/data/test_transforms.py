"""One draw moves all views and the target together, and what is switched off leaves the file's bits alone."""

import cv2
import numpy as np
import pytest

from kpac.config import AugmentConfig, NoiseConfig, ScaleConfig
from kpac.data.images import from_float, to_float
from kpac.data.optics import render_view
from kpac.data.transforms import LUMA, Transform
from tests.conftest import texture

DUAL = ("center", "left", "right")
GEOMETRY = {"flip": True, "rotate": True, "scale": ScaleConfig()}


def draws(augment: AugmentConfig, count: int = 2000) -> list[Transform]:
    generator = np.random.default_rng(0)
    return [Transform.draw(60, 80, 16, augment, generator) for _ in range(count)]


@pytest.fixture
def photo() -> np.ndarray:
    return from_float(texture(60, 80, seed=3), 16)


def test_nothing_is_done_unless_asked_for(photo):
    drawn = draws(AugmentConfig())
    for transform in drawn[:50]:
        crop = photo[transform.top : transform.top + 16, transform.left : transform.left + 16]
        np.testing.assert_array_equal(transform.apply(photo), to_float(crop))
        np.testing.assert_array_equal(transform.apply_to_inputs([photo])[0], to_float(crop))
    assert {transform.top for transform in drawn} == set(range(45))
    assert {transform.left for transform in drawn} == set(range(65))


def test_all_eight_positions_come_up_and_each_is_one():
    image = np.arange(16, dtype=np.uint16).reshape(4, 4, 1).repeat(3, axis=2)
    generator = np.random.default_rng(0)
    augment = AugmentConfig(flip=True, rotate=True)
    seen = {Transform.draw(4, 4, 4, augment, generator).apply(image).tobytes() for _ in range(200)}
    expected = {to_float(np.rot90(turned, turns)).tobytes() for turned in (image, image[:, ::-1]) for turns in range(4)}
    assert seen == expected


def test_views_and_target_keep_their_places_under_every_geometry(photo):
    """The views are the target, darker by a known amount: any other geometry would show."""
    target = photo // 2
    for transform in draws(AugmentConfig(**GEOMETRY), 100):
        (view,) = transform.apply_to_inputs([photo])
        np.testing.assert_allclose(view, 2 * transform.apply(target), atol=1e-4)


def test_scaled_crop_is_the_area_mean_of_its_region(photo):
    drawn = [transform for transform in draws(AugmentConfig(scale=ScaleConfig()), 100) if transform.region > 16]
    assert {transform.region for transform in drawn} == set(range(17, 24))
    for transform in drawn:
        rows, columns = (slice(start, start + transform.region) for start in (transform.top, transform.left))
        region = to_float(photo[rows, columns])
        assert region.shape == (transform.region, transform.region, 3)
        expected = cv2.resize(region, (16, 16), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(transform.apply(photo), expected)


def test_scaling_stays_inside_an_image_hardly_larger_than_the_crop(photo):
    generator = np.random.default_rng(0)
    augment = AugmentConfig(scale=ScaleConfig(range=(0.5, 0.6), probability=1.0))
    for _ in range(50):
        transform = Transform.draw(18, 40, 16, augment, generator)
        assert transform.region == 18
        assert transform.apply(photo[:18, :40]).shape == (16, 16, 3)


def test_gray_is_the_luma_of_views_and_target_alike(photo):
    transform = Transform(top=2, left=3, region=16, size=16, gray=True)
    expected = to_float(photo[2:18, 3:19]) @ LUMA
    for crop in (transform.apply(photo), *transform.apply_to_inputs([photo])):
        assert np.ptp(crop, axis=2).max() == 0
        np.testing.assert_allclose(crop[..., 0], expected, atol=1e-6)


def test_noise_is_on_the_inputs_alone_and_differs_between_views():
    flat = np.full((64, 64, 3), 30000, np.uint16)
    transform = Transform(top=0, left=0, region=64, size=64, noise=0.02, noise_seed=7)
    first, second = transform.apply_to_inputs([flat, flat])
    clean = transform.apply(flat)
    assert np.ptp(clean) == 0
    for view in (first, second):
        assert (view - clean).std() == pytest.approx(0.02, rel=0.05)
        assert (view - clean).mean() == pytest.approx(0, abs=0.001)
    assert np.corrcoef((first - clean).ravel(), (second - clean).ravel())[0, 1] == pytest.approx(0, abs=0.05)
    np.testing.assert_array_equal(first, transform.apply_to_inputs([flat])[0])


def test_noisy_inputs_stay_between_0_and_1():
    black = np.zeros((8, 8, 3), np.uint8)
    (noisy,) = Transform(top=0, left=0, region=8, size=8, noise=0.5).apply_to_inputs([black])
    assert noisy.min() == 0
    assert 0 < noisy.max() <= 1


def test_each_thing_happens_as_often_as_asked_for():
    augment = AugmentConfig(
        flip=True,
        rotate=True,
        gray=0.3,
        scale=ScaleConfig(probability=0.4),
        noise=NoiseConfig(deviation=0.1, probability=0.1),
    )
    drawn = draws(augment)
    shares = {
        "mirror": np.mean([transform.mirror for transform in drawn]),
        "flip": np.mean([transform.flip for transform in drawn]),
        "turned": np.mean([transform.turned for transform in drawn]),
        "gray": np.mean([transform.gray for transform in drawn]),
        "scale": np.mean([transform.region > 16 for transform in drawn]),
        "noise": np.mean([transform.noise > 0 for transform in drawn]),
    }
    # A factor above 16 / 16.5 rounds to no scaling: one in eleven of the range.
    expected = {"mirror": 0.5, "flip": 0.5, "turned": 0.5, "gray": 0.3, "scale": 0.4 * 0.9, "noise": 0.1}
    assert shares == pytest.approx(expected, abs=0.04)


def test_switching_one_thing_on_leaves_the_other_draws_as_they_were():
    plain, gray = draws(AugmentConfig(flip=True), 50), draws(AugmentConfig(flip=True, gray=1.0), 50)
    assert [(t.top, t.left, t.mirror, t.flip) for t in plain] == [(t.top, t.left, t.mirror, t.flip) for t in gray]


@pytest.mark.parametrize(("height", "width", "exchanging"), [(4, 6, "mirror"), (4, 4, "mirror"), (6, 4, "flip")])
def test_dual_views_change_places_when_mirrored_along_the_sensors_longer_side(height, width, exchanging):
    for change in ("mirror", "flip"):
        transform = Transform(top=0, left=0, region=4, size=4, **{change: True})
        expected = ["center", "right", "left"] if change == exchanging else list(DUAL)
        assert transform.order(DUAL, height, width) == expected


@pytest.mark.parametrize("change", [{"mirror": True}, {"flip": True}, {"mirror": True, "flip": True}])
@pytest.mark.parametrize("portrait", [False, True])
def test_mirrored_scene_is_the_scene_that_a_mirrored_world_gives(change, portrait):
    """A point behind the focus plane moves left in the left view; it must do so after mirroring, too."""
    height, width = (25, 21) if portrait else (21, 25)
    photo = np.zeros((height, width, 3), np.float32)
    photo[9, 6] = 1
    transform = Transform(top=0, left=0, region=21, size=21, **change)

    def taken(scene: np.ndarray) -> dict[str, np.ndarray]:
        """By a camera that is turned for portrait photographs."""
        turns = 1 if portrait else 0
        upright = np.ascontiguousarray(np.rot90(scene, turns))
        radius = np.full(upright.shape[:2], 3.0, np.float32)
        return {
            side: from_float(np.rot90(render_view(upright, radius, 0, side), -turns), 16) for side in ("left", "right")
        }

    views, world = taken(photo), taken(to_world(transform, photo))
    for side, source in zip(("left", "right"), transform.order(("left", "right"), height, width), strict=True):
        np.testing.assert_allclose(transform.apply(views[source]), to_float(world[side][:21, :21]), atol=2e-4)
    assert np.abs(to_float(views["left"]) - to_float(views["right"])).max() > 0.01


def to_world(transform: Transform, photo: np.ndarray) -> np.ndarray:
    """The mirrored world in front of the same camera, its crop in the upper left corner."""
    world = np.zeros_like(photo)
    world[:21, :21] = photo[:21, :21][:: -1 if transform.flip else 1, :: -1 if transform.mirror else 1]
    return world
