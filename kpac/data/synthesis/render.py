"""Rendering of one scene: a photograph, a depth map and a camera become views and the true blur radius."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kpac.data.synthesis import optics
from kpac.data.synthesis.settings import SynthesisSettings
from kpac.errors import UserError


@dataclass(frozen=True)
class Rendering:
    """One synthetic scene: sRGB images in [0, 1], H x W x 3, and the signed blur radius in pixels, H x W."""

    center: np.ndarray
    left: np.ndarray
    right: np.ndarray
    target: np.ndarray
    blur_radius: np.ndarray
    focus_distance_m: float


def render(
    photo: np.ndarray, depth_m: np.ndarray | None, settings: SynthesisSettings, seed: Sequence[int]
) -> Rendering:
    """Renders one scene; the same arguments give the same bits.

    Args:
        photo: H x W x 3 sRGB in [0, 1].
        depth_m: H x W distances in metres; None draws a smooth random map.
        settings: the camera.
        seed: of every draw of this scene.

    Raises:
        UserError: the plane in focus is not beyond the focal length.
    """
    generator = np.random.default_rng(seed)
    height, width = photo.shape[:2]
    if depth_m is None:
        depth_m = optics.random_depth(height, width, settings.near_m, settings.far_m, generator)
    row, column = generator.integers(height), generator.integers(width)
    focus = settings.focus_distance_m or float(depth_m[row, column])
    if focus * 1000 <= settings.focal_length_mm:
        raise UserError(
            f"focus distance {focus:g} m: expected more than the focal length, {settings.focal_length_mm:g} mm; "
            "raise focus_distance_m or near_m"
        )
    lens = optics.Lens(
        settings.focal_length_mm, settings.f_number, focus, settings.sensor_width_mm, settings.aperture_blades
    )
    radius = lens.blur_radius(depth_m, max(height, width)).astype(np.float32)
    linear = optics.to_linear(photo).astype(np.float32)
    turns = 1 if height > width else 0  # the halves of the aperture lie along the sensor's longer side
    views = []
    for side in ("left", "right"):
        turned = (np.ascontiguousarray(np.rot90(image, turns)) for image in (linear, radius))
        seen = np.rot90(optics.render_view(*turned, settings.aperture_blades, side), -turns)
        noisy = optics.add_sensor_noise(
            seen, settings.full_well_electrons / 2, settings.read_noise_electrons, generator
        )
        views.append(np.clip(noisy, 0, 1))
    left, right = views
    return Rendering(
        center=optics.to_srgb((left + right) / 2),
        left=optics.to_srgb(left),
        right=optics.to_srgb(right),
        target=photo,
        blur_radius=radius,
        focus_distance_m=focus,
    )
