"""The image of a scene through a thin lens: circle of confusion, layered rendering, dual-pixel views, sensor noise."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from scipy import ndimage

LAYER_STEP = 0.25  # pixels of blur radius between two layers
SUBPIXELS = 8  # a side, to integrate the aperture over each pixel


@dataclass(frozen=True)
class Lens:
    """A thin lens in front of a sensor.

    Args:
        focal_length_mm: focal length in millimetres.
        f_number: focal length over aperture diameter.
        focus_distance_m: distance of the plane in focus, in metres.
        sensor_width_mm: width of the sensor that the image fills, in millimetres; 36 is a full frame.
        blades: straight sides of the aperture, 0 for a disc.
    """

    focal_length_mm: float
    f_number: float
    focus_distance_m: float
    sensor_width_mm: float
    blades: int = 0

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


@cache
def aperture_kernel(radius: float, blades: int, side: str) -> np.ndarray:
    """The blur of a point at a given signed radius, seen through half of the aperture.

    The aperture is symmetric left to right, so each half gets half of the light. Behind the plane in focus the left
    half of the aperture makes the left half of the blur; before it, the right half.

    Args:
        radius: signed blur radius in pixels.
        blades: sides of the aperture polygon, 0 for a disc.
        side: "left" or "right" half of the aperture.

    Returns:
        A square array of odd side, sum 1.
    """
    reach = int(np.ceil(abs(radius)))
    count = (2 * reach + 1) * SUBPIXELS
    position = (np.arange(count) + 0.5) / SUBPIXELS - (reach + 0.5)
    x, y = np.meshgrid(position, position)
    if blades:
        # Distance to the nearest side, for a polygon with a vertex at the top: symmetric left to right.
        angle = np.arctan2(x, -y)
        sector = 2 * np.pi / blades
        offset = (angle % sector) - sector / 2
        inside = np.hypot(x, y) * np.cos(offset) <= abs(radius) * np.cos(sector / 2)
    else:
        inside = np.hypot(x, y) <= abs(radius)
    half = inside & ((x < 0) == ((side == "left") == (radius >= 0)))
    if not half.any():
        half = inside | (np.hypot(x, y) < 0.5)
    cells = half.reshape(2 * reach + 1, SUBPIXELS, 2 * reach + 1, SUBPIXELS).sum(axis=(1, 3))
    return (cells / cells.sum()).astype(np.float32)


def render_view(photo: np.ndarray, radius: np.ndarray, blades: int, side: str) -> np.ndarray:
    """What one half of the aperture sees of a scene: layers from back to front, the near ones occluding the far ones.

    Each layer's colour is blurred among its own pixels only, so nothing in focus bleeds into the blur behind it. Its
    coverage is the blurred mask of everything at its depth or nearer, which leaves no seam between layers of one
    slanted surface.

    Args:
        photo: H x W x 3 in linear light, float32.
        radius: H x W, signed blur radius in pixels, larger is farther away.
        blades: see `aperture_kernel`.
        side: "left" or "right".

    Returns:
        H x W x 3 in linear light.
    """
    layer = np.rint(radius / LAYER_STEP).astype(int)
    seen = np.zeros_like(photo)
    covered = np.zeros(photo.shape[:2], np.float32)
    for index in np.unique(layer)[::-1]:
        kernel = aperture_kernel(float(index * LAYER_STEP), blades, side)
        band = (layer == index).astype(np.float32)
        weight = _blur(band, kernel)
        color = _blur(photo * band[..., None], kernel) / np.maximum(weight, 1e-6)[..., None]
        coverage = _blur((layer <= index).astype(np.float32), kernel) * (weight > 1e-4)
        seen += coverage[..., None] * (color - seen)
        covered += coverage * (1 - covered)
    return seen / np.maximum(covered, 1e-6)[..., None]


def add_sensor_noise(
    image: np.ndarray, full_well_electrons: float, read_noise_electrons: float, generator: np.random.Generator
) -> np.ndarray:
    """Photon and read noise of one half of each pixel, as a normal distribution of their joint variance.

    Args:
        image: linear light in [0, 1], where 1 fills the pixel.
        full_well_electrons: electrons of a full half-pixel; 0 for no noise.
        read_noise_electrons: deviation of the read-out.
        generator: source of the draw.
    """
    if full_well_electrons == 0:
        return image
    variance = (image * full_well_electrons + read_noise_electrons**2) / full_well_electrons**2
    return image + generator.standard_normal(image.shape, dtype=np.float32) * np.sqrt(variance, dtype=np.float32)


def to_linear(image: np.ndarray) -> np.ndarray:
    """sRGB to linear light, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def to_srgb(image: np.ndarray) -> np.ndarray:
    """Linear light to sRGB, both in [0, 1] (IEC 61966-2-1)."""
    image = np.clip(image, 0, 1)
    return np.where(image <= 0.0031308, image * 12.92, 1.055 * image ** (1 / 2.4) - 0.055)


def random_depth(height: int, width: int, near_m: float, far_m: float, generator: np.random.Generator) -> np.ndarray:
    """A smooth random depth map in metres: waves of two sizes, even in inverse distance, filling [near_m, far_m]."""
    waves = np.zeros((height, width), np.float32)
    for cells, strength in ((3, 1.0), (7, 0.35)):
        coarse = generator.standard_normal((cells, cells), dtype=np.float32)
        waves += strength * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    waves = (waves - waves.min()) / (waves.max() - waves.min())
    return 1 / (1 / far_m + waves * (1 / near_m - 1 / far_m))


def fill_holes(depth: np.ndarray) -> np.ndarray:
    """Gives every NaN or infinite pixel of a depth map the value of the nearest known one."""
    unknown = ~np.isfinite(depth)
    if not unknown.any():
        return depth
    nearest = ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True)
    return depth[tuple(nearest)]


def _blur(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolution (`cv2.filter2D` correlates, so the kernel is turned by 180 degrees), the border mirrored."""
    if kernel.size == 1:
        return image
    return cv2.filter2D(image, -1, kernel[::-1, ::-1], borderType=cv2.BORDER_REFLECT)
