"""Thin-lens optics: circle of confusion, aperture, layered rendering, dual-pixel views."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np

FINE_STEP = 0.25  # pixels of blur radius between two layers, up to a radius of COARSE_FROM
COARSE_FROM = 4.0  # pixels; above, the step is FINE_STEP / COARSE_FROM times the radius
SUBPIXELS = 8  # per side of a pixel, to integrate the aperture over it

Side = Literal["left", "right", "whole"]


@dataclass(frozen=True)
class Lens:
    """A thin lens in front of a sensor."""

    focal_length_mm: float
    f_number: float  # focal length over aperture diameter
    focus_distance_m: float  # distance of the plane in focus, in metres
    sensor_width_mm: float  # width of the sensor that the image fills, in millimetres; 36 is a full frame

    def blur_radius(self, depth_m: np.ndarray, image_width: int) -> np.ndarray:
        """Signed radius of the circle of confusion, in pixels: positive behind the plane in focus, else negative.

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
    """Transmission of the lens aperture, which gives the blur of a point its shape.

    Args:
        blades: number of straight sides, 0 for a disc.
        rotation: rotation of the polygon, as a fraction of the angle of one side.
        rim: spherical aberration, -1 to 1: positive if the rim of the blur is brighter than the middle, for points
            behind the plane in focus. In front of it, the sign is reversed.
        cat_eye: mechanical vignetting: center of the second circle that bounds the pupil, to the right and down, in
            units of the pupil's radius.
    """

    blades: int = 0
    rotation: float = 0.0
    rim: float = 0.0
    cat_eye: tuple[float, float] = (0.0, 0.0)

    def transmission(self, u: np.ndarray, v: np.ndarray, behind: bool) -> np.ndarray:
        """Transmitted light at points of the pupil of radius 1; u to the right, v down; not normalized."""
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


@lru_cache(maxsize=512)
def aperture_kernel(radius: float, aperture: Aperture, side: Side) -> np.ndarray:
    """Blur kernel of a point at a given signed radius, through the aperture or half of it.

    For points behind the plane in focus, the left half of the aperture makes the left half of the blur; for points in
    front of it, the right half.

    Args:
        radius: signed blur radius in pixels.
        aperture: shape of the aperture.
        side: "left" or "right" half of the aperture, or the "whole".

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
    """Layer index of each blur radius: an integer that increases with the radius, 0 in focus."""
    size = np.abs(radius)
    coarse = COARSE_FROM * (1 + np.log(np.maximum(size, COARSE_FROM) / COARSE_FROM))
    return np.rint(np.copysign(np.where(size <= COARSE_FROM, size, coarse), radius) / FINE_STEP).astype(int)


def radius_of(layer: int) -> float:
    """Blur radius in the middle of a layer."""
    size = abs(layer) * FINE_STEP
    size = size if size <= COARSE_FROM else COARSE_FROM * float(np.exp(size / COARSE_FROM - 1))
    return float(np.copysign(size, layer))


def render_view(photo: np.ndarray, radius: np.ndarray, aperture: Aperture, side: Side) -> np.ndarray:
    """Renders a scene through the aperture or half of it: layers from back to front, near ones occluding the others.

    A layer's color is blurred using only the layer's pixels, so that sharp objects do not color the blur behind them.
    Its coverage is the blurred mask of all pixels at its depth or nearer, so that slanted surfaces have no seams
    between layers.

    Args:
        photo: H x W x 3 in linear light, float32.
        radius: H x W, signed blur radius in pixels; larger is farther away.
        aperture: shape of the aperture.
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
        # A layer contributes up to one kernel radius around its pixels; its blur there reads one more radius.
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
    """Rows and columns of the bounding box of a mask, with a margin, clipped to the image."""
    rows, columns = (
        slice(max(0, at[0] - margin), min(size, at[-1] + margin + 1))
        for at, size in ((np.flatnonzero(mask.any(axis=1 - axis)), mask.shape[axis]) for axis in (0, 1))
    )
    return rows, columns


def _blur(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolves with mirrored borders; `cv2.filter2D` correlates, so the kernel is turned by 180 degrees."""
    if kernel.size == 1:
        return image
    return cv2.filter2D(image, -1, kernel[::-1, ::-1], borderType=cv2.BORDER_REFLECT)
