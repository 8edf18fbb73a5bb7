"""Tests whether a target is sharper than its input, by comparing the two images tile by tile.

The contrast of a single image is not enough: a tree before a bright sky has a high contrast, sharp or blurred. So the
two images of a pair are compared tile by tile. Where the input is in focus, the target may equal it. But some tiles of
the target should be much sharper, and almost none much blurrier.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import cv2
import numpy as np

from kpac.images import to_float

LONGEST = 2048  # pixels; larger images are reduced by a whole factor, which averages out noise
TILE = 32
DARK = 0.03  # darker tiles count as this bright
# Ratio of the energy between Gaussians of 1 and 2 pixels to the energy that the first one removes: for white noise
# (from its spectrum), and about the smallest value for photographed detail.
NOISE_RATIO, DETAIL_RATIO = 0.047, 0.25
# For 38 pairs of DPDD's test split, at 1024x683, 1024x1024 and 1680x1120, the smallest gain is 0.53, the median 1.8.
CERTAIN = 0.5


@dataclass(frozen=True)
class Detail:
    """The fine detail of each tile of an image, relative to the tile's brightness."""

    contrast: np.ndarray  # mean square of what a Gaussian of 1 pixel removes, over the square of the brightness
    noise: np.ndarray  # estimate of the part of `contrast` that is noise


def detail(pixels: np.ndarray) -> Detail:
    """Measures the fine detail of an image's green channel.

    Shape: H x W x 3 integers -> one number per tile of 32 x 32 pixels; tiles are smaller in small images.
    """
    green = to_float(pixels[..., 1])
    factor = -(-max(green.shape) // LONGEST)
    if factor > 1:
        size = [max(1, side // factor) for side in green.shape]
        green = cv2.resize(green, size[::-1], interpolation=cv2.INTER_AREA)
    side = max(1, min(TILE, min(green.shape) // 4))
    smooth, smoother = (cv2.GaussianBlur(green, (0, 0), deviation) for deviation in (1, 2))
    fine, coarse = _tiles((green - smooth) ** 2, side), _tiles((smooth - smoother) ** 2, side)
    brightness = np.maximum(_tiles(green, side), DARK) ** 2
    return Detail(fine / brightness, _noise(fine, coarse) / brightness)


def gain(blurred: Detail, sharp: Detail) -> float:
    """Measures how much more contrast the second image has in the tiles where the two differ most.

    Returns:
        Each tile has a gain, the natural logarithm of the ratio of contrasts. The result is the mean of the highest
        tenth of the gains plus the mean of the lowest tenth. Contrast below the noise of either image is raised to the
        noise, and the flatter half of the tiles is left out. Swapping the two images changes the sign.
    """
    noise = np.maximum(blurred.noise, sharp.noise) + 1e-5
    one, other = np.maximum(blurred.contrast, noise), np.maximum(sharp.contrast, noise)
    most = np.maximum(one, other)
    ratio = np.sort(0.5 * np.log(other / one)[most >= np.median(most)])
    tenth = max(1, len(ratio) // 10)
    return float(ratio[-tenth:].mean() + ratio[:tenth].mean())


def blurrier(gains: Sequence[float]) -> list[bool]:
    """Tells for each pair of a set whether the target is blurrier than the input.

    If targets are mostly sharper, as they should be, a pair counts as swapped only on clear evidence. If they are
    mostly blurrier, as after swapping two folders, a pair counts as correct only on clear evidence.

    Args:
        gains: the pairs' values from `gain`.
    """
    limit = CERTAIN if gains and median(gains) < -CERTAIN else -CERTAIN
    return [value < limit for value in gains]


def _noise(fine: np.ndarray, coarse: np.ndarray) -> float:
    """Estimates the noise in `fine` from the flattest twentieth of the tiles, which hold both noise and detail."""
    flat = fine <= np.quantile(fine, 0.05)
    both, detail_alone = fine[flat].mean(), coarse[flat].mean()
    noise = (DETAIL_RATIO * both - detail_alone) / (DETAIL_RATIO - NOISE_RATIO)
    return float(np.clip(noise, 0, both))


def _tiles(image: np.ndarray, side: int) -> np.ndarray:
    """Mean of each square tile of an image; leaves out rows and columns beyond the last whole tile."""
    rows, columns = (length // side for length in image.shape)
    cut = image[: rows * side, : columns * side]
    return cut.reshape(rows, side, columns, side).mean((1, 3)).ravel()
