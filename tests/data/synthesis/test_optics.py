"""The synthetic camera obeys the optics it is named after."""

import numpy as np
import pytest

from kpac.data.synthesis import camera
from kpac.data.synthesis.optics import Aperture, Lens, aperture_kernel, layer_of, radius_of, render_view
from kpac.data.synthesis.render import render
from kpac.data.synthesis.settings import SynthesisSettings
from kpac.errors import UserError
from kpac.images import from_float, to_float
from tests.conftest import texture

DISC = Aperture()


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
def test_halves_of_a_symmetric_aperture_mirror_each_other(radius, blades):
    left, right = (aperture_kernel(radius, Aperture(blades), side) for side in ("left", "right"))
    np.testing.assert_allclose(left, right[:, ::-1])
    np.testing.assert_allclose([left.sum(), right.sum()], 1, rtol=1e-6)


def test_blur_before_the_plane_in_focus_is_the_one_behind_it_turned_by_half_a_circle():
    aperture = Aperture(blades=5, rotation=0.3, cat_eye=(0.4, 0.2))
    for side in ("left", "right", "whole"):
        behind, before = (aperture_kernel(radius, aperture, side) for radius in (4.0, -4.0))
        np.testing.assert_allclose(before, behind[::-1, ::-1], atol=1e-6)


def test_spherical_aberration_brightens_the_rim_behind_and_the_middle_before_the_plane_in_focus():
    behind, even, before = (
        aperture_kernel(radius, Aperture(rim=rim), "whole")[8, 8] for radius, rim in ((8.0, 0.6), (8.0, 0), (-8.0, 0.6))
    )
    assert behind < 0.6 * even
    assert before > 1.4 * even


def test_cat_eye_takes_light_from_the_far_side():
    kernel = aperture_kernel(6.0, Aperture(cat_eye=(0.8, 0.0)), "whole")
    assert kernel[:, :3].sum() == 0
    assert kernel[:, -3:].sum() > 0.05


def test_rotated_polygon_repeats_after_the_angle_of_one_side():
    kernels = [aperture_kernel(6.0, Aperture(6, rotation), "whole") for rotation in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(kernels[0], kernels[2], atol=1e-6)
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


def test_layers_are_a_quarter_pixel_or_a_sixteenth_of_the_radius_apart():
    radius = np.linspace(-20, 20, 4001)
    middles = np.array([radius_of(layer) for layer in layer_of(radius)])
    assert np.abs(middles - radius).max() < 0.5 * 20 / 16 + 0.05
    near = np.abs(radius) <= 4
    assert np.abs(middles - radius)[near].max() <= 0.125 + 1e-9
    assert radius_of(0) == 0


def test_disc_has_the_radius_it_is_given():
    disc = (aperture_kernel(6.0, DISC, "left") + aperture_kernel(6.0, DISC, "right")) / 2
    assert np.count_nonzero(disc > 0.99 * disc.max()) == pytest.approx(np.pi * 6**2, rel=0.15)
    rows, columns = np.nonzero(disc)
    assert rows.max() - rows.min() + 1 == 13
    assert columns.max() - columns.min() + 1 == 13


def test_point_behind_the_focus_plane_moves_left_in_the_left_view():
    photo = np.zeros((41, 41, 3), np.float32)
    photo[20, 20] = 1
    columns = np.arange(41)

    def position(radius: float, side: str) -> float:
        image = render_view(photo, np.full((41, 41), radius, np.float32), DISC, side)[..., 0]
        return float((image.sum(axis=0) * columns).sum() / image.sum())

    assert position(4, "left") < 19
    assert position(4, "right") > 21
    assert position(-4, "left") > 21


def test_uniform_depth_is_a_plain_convolution_that_keeps_the_light():
    photo = np.zeros((31, 31, 3), np.float32)
    photo[15, 15] = 1
    image = render_view(photo, np.full((31, 31), 3.0, np.float32), DISC, "left")
    kernel = aperture_kernel(3.0, DISC, "left")
    np.testing.assert_allclose(image[12:19, 12:19, 1], kernel, atol=1e-7)
    np.testing.assert_allclose(image.sum(axis=(0, 1)), 1, rtol=1e-5)


def test_foreground_in_focus_stays_sharp_before_a_blurred_background():
    photo = np.zeros((32, 64, 3), np.float32)
    photo[:, 32:] = 1  # near, white; far, black
    radius = np.where(np.arange(64) < 32, 5.0, 0.0) * np.ones((32, 1))
    image = render_view(photo, radius.astype(np.float32), DISC, "left")
    np.testing.assert_allclose(image, photo, atol=1e-6)


def test_blurred_foreground_spills_over_a_background_in_focus():
    photo = np.zeros((32, 64, 3), np.float32)
    photo[:, 32:] = 1
    radius = np.where(np.arange(64) < 32, 0.0, -5.0) * np.ones((32, 1))
    views = [render_view(photo, radius.astype(np.float32), DISC, side) for side in ("left", "right")]
    middle = (views[0] + views[1])[16, :, 0] / 2
    assert 0.05 < middle[29] < 0.5 < middle[34]
    assert middle[20] == 0


def test_zero_blur_returns_the_photo():
    photo = from_float(texture(48, 64, 0), 8)
    settings = SynthesisSettings(focus_distance_m=2, full_well_electrons=0)
    scene = render(to_float(photo), np.full((48, 64), 2.0), settings, seed=[0])
    assert set(scene.views) == {"center", "left", "right"}
    for view in scene.views.values():
        np.testing.assert_array_equal(from_float(view, 8), photo)
        np.testing.assert_allclose(view, to_float(photo), atol=1e-5)


@pytest.mark.parametrize("full_well", [0, 60000])
def test_center_view_is_the_mean_of_left_and_right_in_linear_light(full_well):
    settings = SynthesisSettings(f_number=1.0, full_well_electrons=full_well)
    scene = render(texture(48, 64, 1), None, settings, seed=[3])
    center, left, right = (camera.to_linear(scene.views[name]) for name in ("center", "left", "right"))
    np.testing.assert_allclose(center, (left + right) / 2, atol=1e-6)
    assert np.abs(left - right).max() > 0.01


def test_center_view_alone_is_the_center_of_the_dual_views_where_nothing_occludes():
    photo, depth = texture(48, 64, 1), np.full((48, 64), 5.0)
    both, alone = (
        render(photo, depth, SynthesisSettings(views=views, focus_distance_m=2, full_well_electrons=0), seed=[3])
        for views in ("dual", "center")
    )
    assert set(alone.views) == {"center"}
    np.testing.assert_allclose(alone.views["center"], both.views["center"], atol=1e-3)


def test_noise_has_the_deviation_of_its_electrons():
    image = np.full((200, 200, 3), 0.25, np.float32)
    noisy = camera.add_sensor_noise(image, 10000, 20, np.random.default_rng(0))
    assert noisy.std() == pytest.approx(np.sqrt(0.25 * 10000 + 20**2) / 10000, rel=0.02)
    assert noisy.mean() == pytest.approx(0.25, abs=1e-3)


def test_linear_light_and_back_is_the_identity():
    values = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(camera.to_srgb(camera.to_linear(values)), values, atol=1e-9)


def test_developing_undoes_undeveloping_below_the_highlights():
    values = np.linspace(0, 0.97, 500)
    light = camera.undevelop(values, contrast=0.5, highlights=3)
    np.testing.assert_allclose(camera.develop(light, contrast=0.5), values, atol=1e-5)
    assert camera.undevelop(np.array([1.0]), 0.5, 3) == pytest.approx(3)


def test_blurred_lights_stay_bright():
    photo = np.zeros((41, 41, 3), np.float32)
    photo[19:22, 19:22] = 1
    depth, center = np.full((41, 41), 8.0), {}
    for highlights in (1.0, 3.0):
        settings = SynthesisSettings(
            focus_distance_m=2, f_number=1.4, full_well_electrons=0, highlights=highlights, sensor_width_mm=3
        )
        center[highlights] = camera.to_linear(render(photo, depth, settings, seed=[0]).views["center"][20, 20, 0])
    assert 0.01 < center[1.0] < 0.3
    assert center[3.0] == pytest.approx(3 * center[1.0], rel=0.01)


def test_compressed_input_has_a_target_that_is_not():
    photo = texture(48, 64, 2)
    scene = render(photo, None, SynthesisSettings(jpeg_quality=40), seed=[0])
    values = scene.views["center"] * 255
    np.testing.assert_allclose(values, np.rint(values), atol=1e-3)
    assert scene.facts["jpeg_quality"] == 40
    np.testing.assert_array_equal(scene.target, photo)
    assert render(photo, None, SynthesisSettings(jpeg_quality=40, jpeg_share=0), [0]).facts["jpeg_quality"] is None


def test_focus_nearer_than_the_focal_length_is_refused():
    settings = SynthesisSettings(focus_distance_m=0.04)
    with pytest.raises(UserError, match="more than the focal length, 50 mm"):
        render(texture(8, 8, 0), np.ones((8, 8)), settings, seed=[0])
