"""Renders one scene: its views and true blur radius, from a photograph, a depth map and a camera."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from kpac.data.synthesis import camera
from kpac.data.synthesis.depth import random_depth
from kpac.data.synthesis.optics import Aperture, Lens, Side, render_view
from kpac.data.synthesis.settings import SynthesisSettings, draw, draw_log
from kpac.errors import UserError


@dataclass(frozen=True)
class Rendering:
    """One synthetic scene."""

    views: dict[str, np.ndarray]  # sRGB in [0, 1], H x W x 3: "center"; of dual-pixel scenes also "left" and "right"
    target: np.ndarray  # the photograph
    blur_radius: np.ndarray  # signed blur radius in pixels, H x W
    facts: dict[str, Any]  # the values drawn for the scene, for the data set's manifest


def render(
    photo: np.ndarray, depth_m: np.ndarray | None, settings: SynthesisSettings, seed: Sequence[int]
) -> Rendering:
    """Renders one scene; the same arguments give the same bits.

    Args:
        photo: H x W x 3 sRGB in [0, 1].
        depth_m: H x W distances in metres; None draws a random map.
        settings: settings of the scene and the camera.
        seed: seed of all draws of this scene.

    Raises:
        UserError: the plane in focus is not beyond the focal length.
    """
    # One generator for each group of settings, so that changing one setting does not change the draws of the others.
    scene, optics, sensor = (np.random.default_rng([*seed, concern]) for concern in range(3))
    near, far = draw_log(settings.near_m, scene), draw_log(settings.far_m, scene)
    kind = "measured"
    if depth_m is None:
        kinds, weights = zip(*settings.depth_maps.items(), strict=True)
        kind = kinds[scene.choice(len(kinds), p=np.array(weights) / sum(weights))]
        depth_m = random_depth(photo, kind, near, far, scene)
    focus = _focus_distance(depth_m, settings, scene)
    lens = Lens(
        draw_log(settings.focal_length_mm, optics),
        draw_log(settings.f_number, optics),
        focus,
        draw_log(settings.sensor_width_mm, optics),
    )
    if focus * 1000 <= lens.focal_length_mm:
        raise UserError(
            f"focus distance {focus:g} m: expected more than the focal length, {lens.focal_length_mm:g} mm; "
            "raise focus_distance_m or near_m"
        )
    aperture = _aperture(settings, optics)
    softness = draw(settings.lens_blur_px, optics)
    radius = lens.blur_radius(depth_m, max(photo.shape[:2])).astype(np.float32)

    contrast, highlights = draw(settings.contrast, sensor), draw_log(settings.highlights, sensor)
    full_well, read_noise = draw(settings.full_well_electrons, sensor), draw(settings.read_noise_electrons, sensor)
    compressed = settings.jpeg_quality and sensor.random() < settings.jpeg_share
    quality = round(draw(settings.jpeg_quality, sensor)) if compressed and settings.jpeg_quality else None
    light = camera.undevelop(photo, contrast, highlights).astype(np.float32)

    sides: tuple[Side, ...] = ("left", "right") if settings.views == "dual" else ("whole",)
    seen: dict[str, np.ndarray] = {}
    for side in sides:
        image = _see(light, radius, aperture, side)
        image = cv2.GaussianBlur(image, (0, 0), softness) if softness > 0.05 else image
        image = camera.add_sensor_noise(image, full_well / len(sides), read_noise, sensor)
        seen[side] = np.clip(image, 0, 1)
    # The center view is the mean of both views in linear light, as on a sensor whose pixels are divided in two.
    views: dict[str, Any] = {"center": sum(seen.values()) / len(seen)}
    views |= seen if settings.views == "dual" else {}
    developed = {name: camera.develop(view, contrast) for name, view in views.items()}
    if quality:
        developed = {name: camera.compress(view, quality) for name, view in developed.items()}
    facts = {
        "depth": kind,
        "focus_distance_m": round(focus, 4),
        "focal_length_mm": round(lens.focal_length_mm, 2),
        "f_number": round(lens.f_number, 3),
        "blur_radius_px": [round(float(value), 3) for value in (radius.min(), radius.max())],
        "jpeg_quality": quality,
    }
    return Rendering(developed, photo, radius, facts)


def _focus_distance(depth_m: np.ndarray, settings: SynthesisSettings, generator: np.random.Generator) -> float:
    row, column = (generator.integers(size) for size in depth_m.shape)
    anywhere = draw_log((float(depth_m.min()), float(depth_m.max())), generator)
    on_scene = generator.random() < settings.focus_on_scene
    if settings.focus_distance_m:
        return draw_log(settings.focus_distance_m, generator)
    return float(depth_m[row, column]) if on_scene else anywhere


def _aperture(settings: SynthesisSettings, generator: np.random.Generator) -> Aperture:
    blades = settings.aperture_blades[generator.integers(len(settings.aperture_blades))]
    rotation, rim = draw(settings.aperture_rotation, generator), draw(settings.aperture_rim, generator)
    direction, offset = generator.uniform(0, 2 * np.pi), 2 * draw(settings.cat_eye, generator)
    cat_eye = (offset * float(np.cos(direction)), offset * float(np.sin(direction)))
    return Aperture(blades, rotation, rim, cat_eye)


def _see(light: np.ndarray, radius: np.ndarray, aperture: Aperture, side: Side) -> np.ndarray:
    """Calls `render_view` with the halves of the aperture along the sensor's longer side."""
    turns = 1 if light.shape[0] > light.shape[1] else 0
    light, radius = (np.ascontiguousarray(np.rot90(array, turns)) for array in (light, radius))
    return np.ascontiguousarray(np.rot90(render_view(light, radius, aperture, side), -turns))
