"""Random depth maps for photographs without one."""

from collections.abc import Callable

import cv2
import numpy as np
from scipy import ndimage
from skimage.segmentation import felzenszwalb

from kpac.data.synthesis.settings import DepthKind


def random_depth(
    photo: np.ndarray, kind: DepthKind, near_m: float, far_m: float, generator: np.random.Generator
) -> np.ndarray:
    """Draws a random map of inverse distances and scales it to span [near_m, far_m].

    Args:
        photo: H x W x 3 in [0, 1]; "segments" uses its regions, the other kinds only its size.
        kind: see `kpac.data.synthesis.settings.SynthesisSettings.depth_maps`.
        near_m, far_m: smallest and largest distance, in metres.
        generator: source of the draws.

    Returns:
        H x W in metres.
    """
    closeness = _KINDS[kind](photo, generator)
    span = closeness.max() - closeness.min()
    closeness = (closeness - closeness.min()) / span if span > 0 else np.zeros_like(closeness)
    return 1 / (1 / far_m + closeness * (1 / near_m - 1 / far_m))


def fill_holes(depth: np.ndarray) -> np.ndarray:
    """Fills each NaN or infinite pixel of a depth map with the value of the nearest finite one."""
    unknown = ~np.isfinite(depth)
    if not unknown.any():
        return depth
    nearest = ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True)
    return depth[tuple(nearest)]


def _waves(photo: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Waves of two sizes: a smooth depth map without object edges."""
    height, width = photo.shape[:2]
    waves = np.zeros((height, width), np.float32)
    for cells, strength in ((3, 1.0), (7, 0.35)):
        coarse = generator.standard_normal((cells, cells), dtype=np.float32)
        waves += strength * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return waves


def _plane(photo: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A slanted plane: inverse distance is linear in the image's coordinates."""
    height, width = photo.shape[:2]
    slope_x, slope_y = generator.normal(scale=(0.4, 0.7))  # ground planes are more frequent than side walls
    x, y = np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height)
    return (slope_x * x[None] + slope_y * y[:, None]).astype(np.float32)


def _objects(photo: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Flat objects in front of a slanted plane, drawn from far to near."""
    closeness = 0.5 * _plane(photo, generator)
    nearer = np.sort(generator.uniform(0.1, 1.0, size=generator.integers(2, 13)))
    for offset in nearer:
        mask = np.zeros(photo.shape[:2], np.uint8)
        draw = (_polygon, _disc, _bars)[generator.choice(3, p=(0.5, 0.2, 0.3))]
        draw(mask, generator)
        inside = mask > 0
        closeness[inside] = (offset + 0.1 * _plane(photo, generator))[inside]
    return closeness


def _segments(photo: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Regions of the photograph, each at its own distance and parallel to one slanted plane."""
    scale = float(np.exp(generator.uniform(np.log(100), np.log(800))))
    smallest = max(20, int(photo.shape[0] * photo.shape[1] * 0.003))
    labels = felzenszwalb(photo, scale=scale, sigma=0.8, min_size=smallest)
    offsets = generator.normal(scale=generator.uniform(0.1, 0.5), size=labels.max() + 1)
    return _plane(photo, generator) + offsets.astype(np.float32)[labels]


def _polygon(mask: np.ndarray, generator: np.random.Generator) -> None:
    height, width = mask.shape
    corners = int(generator.integers(3, 9))
    angles = np.sort(generator.uniform(0, 2 * np.pi, corners))
    radii = generator.uniform(0.05, 0.35) * max(height, width) * generator.uniform(0.5, 1.0, corners)
    center = generator.uniform(0, 1, 2) * (width, height)
    points = center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)


def _disc(mask: np.ndarray, generator: np.random.Generator) -> None:
    height, width = mask.shape
    center = tuple(int(value) for value in generator.uniform(0, 1, 2) * (width, height))
    axes = tuple(int(value) for value in generator.uniform(0.03, 0.25, 2) * max(height, width))
    cv2.ellipse(mask, center, axes, float(generator.uniform(0, 180)), 0, 360, 1, thickness=-1)


def _bars(mask: np.ndarray, generator: np.random.Generator) -> None:
    """Draws one to eight parallel bars, such as posts and fences, into a mask."""
    height, width = mask.shape
    size = max(height, width)
    thickness = max(1, int(size * np.exp(generator.uniform(np.log(0.006), np.log(0.08)))))
    angle = generator.uniform(0, np.pi)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    start = generator.uniform(0, 1, 2) * (width, height)
    gap = thickness * generator.uniform(2, 6)
    for index in range(int(generator.integers(1, 9))):
        middle = start + index * gap * across
        first, last = (np.rint(middle + end * along).astype(int).tolist() for end in (-2 * size, 2 * size))
        cv2.line(mask, first, last, 1, thickness)


_KINDS: dict[DepthKind, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "waves": _waves,
    "planes": _plane,
    "objects": _objects,
    "segments": _segments,
}
