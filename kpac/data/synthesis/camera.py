"""The camera's processing of light to image values: noise, tone curve, compression."""

from typing import Any

import cv2
import numpy as np

_CURVE = np.linspace(0, 1, 4096)


def add_sensor_noise(
    image: np.ndarray, full_well_electrons: float, read_noise_electrons: float, generator: np.random.Generator
) -> np.ndarray:
    """Adds photon and read noise of one half of each pixel, as normal noise with their joint variance.

    Args:
        image: linear light in [0, 1]; 1 fills the pixel's well.
        full_well_electrons: electrons of a full half-pixel; 0 for no noise.
        read_noise_electrons: standard deviation of the read noise.
        generator: source of the draw.
    """
    if full_well_electrons == 0:
        return image
    variance = (image * full_well_electrons + read_noise_electrons**2) / full_well_electrons**2
    return image + generator.standard_normal(image.shape, dtype=np.float32) * np.sqrt(variance, dtype=np.float32)


def to_linear(image: np.ndarray) -> np.ndarray:
    """Converts sRGB to linear light, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def to_srgb(image: np.ndarray) -> np.ndarray:
    """Converts linear light to sRGB, both in [0, 1] (IEC 61966-2-1)."""
    image = np.clip(image, 0, 1)
    return np.where(image <= 0.0031308, image * 12.92, 1.055 * image ** (1 / 2.4) - 0.055)


def contrast_curve(image: np.ndarray, contrast: float) -> np.ndarray:
    """Applies an S-shaped curve on [0, 1] that keeps 0, 0.5 and 1; contrast 0 is the identity, 1 a smoothstep."""
    return image + contrast * (image * image * (3 - 2 * image) - image)


def develop(light: np.ndarray, contrast: float) -> np.ndarray:
    """Converts linear light to image values in [0, 1]: sRGB, then the contrast curve."""
    return contrast_curve(to_srgb(light), contrast)


def undevelop(image: np.ndarray, contrast: float, highlights: float = 1.0) -> np.ndarray:
    """Inverse of `develop`: converts image values to linear light.

    Args:
        image: values in [0, 1].
        contrast: contrast of the curve.
        highlights: light of white pixels, in multiples of white; the increase begins at the image value 0.97.
    """
    if contrast:
        image = np.interp(image, contrast_curve(_CURVE, contrast), _CURVE)
    light = to_linear(image)
    return light * (1 + (highlights - 1) * np.clip((image - 0.97) / 0.03, 0, 1) ** 2)


def compress(image: np.ndarray, quality: int) -> np.ndarray:
    """Compresses an image as JPEG and decodes it again.

    Shape: H x W x 3 in [0, 1] -> H x W x 3 in [0, 1], 8-bit values.
    """
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded: Any = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return decoded[..., ::-1].astype(np.float32) / 255
