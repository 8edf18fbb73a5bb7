"""The image of a scene through a thin lens: circle of confusion, aperture, layered rendering, dual-pixel views."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np

FINE_STEP = 0.25  # pixels of blur radius between two layers, up to a radius of COARSE_FROM
COARSE_FROM = 4.0  # pixels; beyond, layers lie FINE_STEP / COARSE_FROM of their radius apart
SUBPIXELS = 8  # a side, to integrate the aperture over each pixel

Side = Literal["left", "right", "whole"]


@dataclass(frozen=True)
class Lens:
    """A thin lens in front of a sensor.

    Args:
        focal_length_mm: focal length in millimetres.
        f_number: focal length over aperture diameter.
        focus_distance_m: distance of the plane in focus, in metres.
        sensor_width_mm: width of the sensor that the image fills, in millimetres; 36 is a full frame.
    """

    focal_length_mm: float
    f_number: float
    focus_distance_m: float
    sensor_width_mm: float

    def blur_radius(self, depth_m: np.ndarray, image_width: int) -> np.ndarray:
        """Signed radius of the circle of confusion, in pixels: positive behind the plane in focus, negative before it.

        Diameter on the sensor: f^2 / N * (d - s) / (d (s - f)), for focal length f, f-number N, focus distance s and
        depth d.

        Args:
            depth_m: distances in metres, any shape.
            image_width: width of the image in pixels.
        """
        focal_length_m = self.focal_length_mm / 1000
        focus = self.focus_distance_m
        aperture_m = focal_length_m / self.f_number
        diameter_m = aperture_m * focal_length_m * (depth_m - focus) / (depth_m * (focus - focal_length_m))
        pixel_m = self.sensor_width_mm / 1000 / image_width
        return diameter_m / pixel_m / 2


@dataclass(frozen=True)
class Aperture:
    """What the lens lets through; the blur of a point is its image.

    Args:
        blades: straight sides, 0 for a disc.
        rotation: of the polygon, as a fraction of the angle of one side.
        rim: spherical aberration, -1 to 1: brightness of the rim against the middle, behind the plane in focus; the
            other way round before it.
        cat_eye: mechanical vignetting: where the second circle that bounds the pupil has its center, in units of the
            pupil's radius, to the right and down.
    """

    blades: int = 0
    rotation: float = 0.0
    rim: float = 0.0
    cat_eye: tuple[float, float] = (0.0, 0.0)

    def transmission(self, u: np.ndarray, v: np.ndarray, behind: bool) -> np.ndarray:
        """Light that passes at points of the pupil, whose radius is 1; u to the right, v down; not normalised."""
        distance = np.hypot(u, v)
        if self.blades:
            # Distance to the nearest side. A vertex is at the top: unrotated, the polygon is symmetric left to right.
            sector = 2 * np.pi / self.blades
            offset = (np.arctan2(u, -v) - self.rotation * sector) % sector - sector / 2
            inside = distance * np.cos(offset) <= np.cos(sector / 2)
        else:
            inside = distance <= 1
        if any(self.cat_eye):
            inside = inside & (np.hypot(u - self.cat_eye[0], v - self.cat_eye[1]) <= 1)
        rim = self.rim if behind else -self.rim
        return inside * (1 + rim * np.clip(2 * distance**2 - 1, -1, 1))


DISC = Aperture()


@lru_cache(maxsize=512)
def aperture_kernel(radius: float, aperture: Aperture, side: Side) -> np.ndarray:
    """The blur of a point at a given signed radius, seen through the aperture or half of it.

    Behind the plane in focus the left half of the aperture makes the left half of the blur; before it, the right half.

    Args:
        radius: signed blur radius in pixels.
        aperture: its shape.
        side: "left" or "right" half of the aperture, or the "whole" of it.

    Returns:
        A square array of odd side, sum 1.
    """
    reach = int(np.ceil(abs(radius)))
    count = (2 * reach + 1) * SUBPIXELS
    position = (np.arange(count) + 0.5) / SUBPIXELS - (reach + 0.5)
    x, y = np.meshgrid(position, position)
    scale = radius or 1.0
    u, v = x / scale, y / scale
    light = aperture.transmission(u, v, behind=radius >= 0)
    half = light if side == "whole" else light * ((u < 0) == (side == "left"))
    if not half.any():  # a radius below a subpixel
        half = np.where(np.hypot(x, y) < 0.5, 1.0, light)
    cells = half.reshape(2 * reach + 1, SUBPIXELS, 2 * reach + 1, SUBPIXELS).sum(axis=(1, 3))
    return (cells / cells.sum()).astype(np.float32)


def layer_of(radius: np.ndarray) -> np.ndarray:
    """The layer of each blur radius: whole numbers that grow with it, 0 in focus."""
    size = np.abs(radius)
    coarse = COARSE_FROM * (1 + np.log(np.maximum(size, COARSE_FROM) / COARSE_FROM))
    return np.rint(np.copysign(np.where(size <= COARSE_FROM, size, coarse), radius) / FINE_STEP).astype(int)


def radius_of(layer: int) -> float:
    """The blur radius in the middle of a layer."""
    size = abs(layer) * FINE_STEP
    size = size if size <= COARSE_FROM else COARSE_FROM * float(np.exp(size / COARSE_FROM - 1))
    return float(np.copysign(size, layer))


def render_view(photo: np.ndarray, radius: np.ndarray, aperture: Aperture, side: Side) -> np.ndarray:
    """What the aperture, or half of it, sees of a scene: layers from back to front, the near ones occluding the others.

    Each layer's colour is blurred among its own pixels only, so nothing in focus bleeds into the blur behind it. Its
    coverage is the blurred mask of everything at its depth or nearer, which leaves no seam between layers of one
    slanted surface.

    Args:
        photo: H x W x 3 in linear light, float32.
        radius: H x W, signed blur radius in pixels, larger is farther away.
        aperture: its shape.
        side: "left", "right" or "whole".

    Returns:
        H x W x 3 in linear light.
    """
    layer = layer_of(radius)
    seen = np.zeros_like(photo)
    covered = np.zeros(photo.shape[:2], np.float32)
    for index in np.unique(layer)[::-1]:
        kernel = aperture_kernel(radius_of(int(index)), aperture, side)
        whole = layer == index
        # A layer reaches no farther than its kernel, and its blur there depends on pixels as far away again.
        inner, outer = (_around(whole, times * (kernel.shape[0] // 2)) for times in (1, 2))
        cut = tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
        band = whole[outer].astype(np.float32)
        weight = _blur(band, kernel)[cut]
        color = _blur(photo[outer] * band[..., None], kernel)[cut] / np.maximum(weight, 1e-6)[..., None]
        coverage = _blur((layer[outer] <= index).astype(np.float32), kernel)[cut] * (weight > 1e-4)
        seen[inner] += coverage[..., None] * (color - seen[inner])
        covered[inner] += coverage * (1 - covered[inner])
    return seen / np.maximum(covered, 1e-6)[..., None]


def _around(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The rows and columns of a mask's pixels, and a margin around them as far as the image goes."""
    rows, columns = (
        slice(max(0, at[0] - margin), min(size, at[-1] + margin + 1))
        for at, size in ((np.flatnonzero(mask.any(axis=1 - axis)), mask.shape[axis]) for axis in (0, 1))
    )
    return rows, columns


def _blur(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolution (`cv2.filter2D` correlates, so the kernel is turned by 180 degrees), the border mirrored."""
    if kernel.size == 1:
        return image
    return cv2.filter2D(image, -1, kernel[::-1, ::-1], borderType=cv2.BORDER_REFLECT)
