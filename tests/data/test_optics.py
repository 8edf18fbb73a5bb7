"""The synthetic camera obeys the optics it is named after."""

import numpy as np
import pytest

from kpac.data.images import from_float, to_float
from kpac.data.synthesis import optics
from kpac.data.synthesis.optics import Lens, aperture_kernel, render_view
from kpac.data.synthesis.render import render
from kpac.data.synthesis.settings import SynthesisSettings
from kpac.errors import UserError
from tests.conftest import texture


def test_circle_of_confusion_is_the_thin_lens_equation():
    lens = Lens(focal_length_mm=50, f_number=2, focus_distance_m=2, sensor_width_mm=36)
    # Similar triangles: a point at d is sharp at v(d) = f d / (d - f); the sensor is at v(2 m).
    depth, focal, aperture = np.array([1.0, 2.0, 8.0]), 0.05, 0.025
    image_distance = focal * depth / (depth - focal)
    sensor = focal * 2 / (2 - focal)
    diameter = aperture * (sensor - image_distance) / image_distance
    np.testing.assert_allclose(lens.blur_radius(depth, 720), diameter / 2 / (0.036 / 720), rtol=1e-9, atol=1e-12)
    assert lens.blur_radius(np.array([1.0]), 720) < 0 < lens.blur_radius(np.array([8.0]), 720)


@pytest.mark.parametrize("blades", [0, 5, 6])
@pytest.mark.parametrize("radius", [0.25, 1.0, 3.5, -2.25])
def test_halves_of_the_aperture_mirror_each_other(radius, blades):
    left, right = (aperture_kernel(radius, blades, side) for side in ("left", "right"))
    np.testing.assert_allclose(left, right[:, ::-1])
    np.testing.assert_allclose([left.sum(), right.sum()], 1, rtol=1e-6)
    np.testing.assert_array_equal(aperture_kernel(-radius, blades, "left"), right)


def test_disc_has_the_radius_it_is_given():
    disc = (aperture_kernel(6.0, 0, "left") + aperture_kernel(6.0, 0, "right")) / 2
    assert np.count_nonzero(disc > 0.99 * disc.max()) == pytest.approx(np.pi * 6**2, rel=0.15)
    rows, columns = np.nonzero(disc)
    assert rows.max() - rows.min() + 1 == 13
    assert columns.max() - columns.min() + 1 == 13


def test_point_behind_the_focus_plane_moves_left_in_the_left_view():
    photo = np.zeros((41, 41, 3), np.float32)
    photo[20, 20] = 1
    columns = np.arange(41)

    def position(radius: float, side: str) -> float:
        image = render_view(photo, np.full((41, 41), radius, np.float32), 0, side)[..., 0]
        return float((image.sum(axis=0) * columns).sum() / image.sum())

    assert position(4, "left") < 19
    assert position(4, "right") > 21
    assert position(-4, "left") > 21


def test_uniform_depth_is_a_plain_convolution_that_keeps_the_light():
    photo = np.zeros((31, 31, 3), np.float32)
    photo[15, 15] = 1
    image = render_view(photo, np.full((31, 31), 3.0, np.float32), 0, "left")
    kernel = aperture_kernel(3.0, 0, "left")
    np.testing.assert_allclose(image[12:19, 12:19, 1], kernel, atol=1e-7)
    np.testing.assert_allclose(image.sum(axis=(0, 1)), 1, rtol=1e-5)


def test_foreground_in_focus_stays_sharp_before_a_blurred_background():
    photo = np.zeros((32, 64, 3), np.float32)
    photo[:, 32:] = 1  # near, white; far, black
    radius = np.where(np.arange(64) < 32, 5.0, 0.0) * np.ones((32, 1))
    image = render_view(photo, radius.astype(np.float32), 0, "left")
    np.testing.assert_allclose(image, photo, atol=1e-6)


def test_blurred_foreground_spills_over_a_background_in_focus():
    photo = np.zeros((32, 64, 3), np.float32)
    photo[:, 32:] = 1
    radius = np.where(np.arange(64) < 32, 0.0, -5.0) * np.ones((32, 1))
    views = [render_view(photo, radius.astype(np.float32), 0, side) for side in ("left", "right")]
    middle = (views[0] + views[1])[16, :, 0] / 2
    assert 0.05 < middle[29] < 0.5 < middle[34]
    assert middle[20] == 0


def test_zero_blur_returns_the_photo():
    photo = from_float(texture(48, 64, 0), 8)
    settings = SynthesisSettings(focus_distance_m=2, full_well_electrons=0)
    scene = render(to_float(photo), np.full((48, 64), 2.0), settings, seed=[0])
    for view in (scene.center, scene.left, scene.right):
        np.testing.assert_array_equal(from_float(view, 8), photo)
        np.testing.assert_allclose(view, to_float(photo), atol=1e-5)


@pytest.mark.parametrize("full_well", [0, 60000])
def test_center_view_is_the_mean_of_left_and_right_in_linear_light(full_well):
    settings = SynthesisSettings(f_number=1.0, full_well_electrons=full_well)
    scene = render(texture(48, 64, 1), None, settings, seed=[3])
    mean = (optics.to_linear(scene.left) + optics.to_linear(scene.right)) / 2
    np.testing.assert_allclose(optics.to_linear(scene.center), mean, atol=1e-6)
    assert np.abs(scene.left - scene.right).max() > 0.02


def test_noise_has_the_deviation_of_its_electrons():
    image = np.full((200, 200, 3), 0.25, np.float32)
    noisy = optics.add_sensor_noise(image, 10000, 20, np.random.default_rng(0))
    assert noisy.std() == pytest.approx(np.sqrt(0.25 * 10000 + 20**2) / 10000, rel=0.02)
    assert noisy.mean() == pytest.approx(0.25, abs=1e-3)


def test_linear_light_and_back_is_the_identity():
    values = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(optics.to_srgb(optics.to_linear(values)), values, atol=1e-9)


def test_random_depth_fills_its_range():
    depth = optics.random_depth(64, 96, 1.0, 10.0, np.random.default_rng(0))
    assert depth.min() == pytest.approx(1.0, rel=1e-4)
    assert depth.max() == pytest.approx(10.0, rel=1e-4)


def test_holes_take_the_nearest_known_depth():
    depth = np.array([[1.0, np.nan, np.inf, 5.0]])
    np.testing.assert_array_equal(optics.fill_holes(depth), [[1, 1, 5, 5]])


def test_focus_nearer_than_the_focal_length_is_refused():
    settings = SynthesisSettings(focus_distance_m=0.04)
    with pytest.raises(UserError, match="more than the focal length, 50 mm"):
        render(texture(8, 8, 0), np.ones((8, 8)), settings, seed=[0])
