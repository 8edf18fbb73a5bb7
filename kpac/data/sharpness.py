"""Whether a target is sharper than its input, told from both images and not from one alone.

Contrast tells little by itself: a bright sky behind a tree has much, sharp or not. So the two images of a pair are
compared place by place. A target may equal its input where that one is in focus, but in some places it is much sharper,
and in hardly any much blurrier.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import cv2
import numpy as np

from kpac.images import to_float

LONGEST = 2048  # pixels; larger images are shrunk by a whole number, which averages their noise away
TILE = 32
DARK = 0.03  # darker tiles count as this bright
# What two Gaussians of 1 and 2 pixels leave between them, over what the first one takes away: of white noise, by its
# spectrum, and of photographed detail at least about so much.
NOISE_RATIO, DETAIL_RATIO = 0.047, 0.25
# Of 38 pairs of DPDD's test split, at 1024x683, 1024x1024 and 1680x1120, the least has a gain of 0.53, the median 1.8.
CERTAIN = 0.5


@dataclass(frozen=True)
class Detail:
    """The fine detail of an image, tile by tile, relative to the tile's brightness.

    Args:
        contrast: mean square of what a Gaussian of 1 pixel takes away, over the square of the brightness.
        noise: how much of that is noise, about.
    """

    contrast: np.ndarray
    noise: np.ndarray


def detail(pixels: np.ndarray) -> Detail:
    """The fine detail of an image's green channel.

    Shape: H x W x 3 integers -> one number a tile of 32 x 32 pixels, of fewer in small images.
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
    """How much more contrast the second image has in the places where the two differ most.

    Returns:
        The natural logarithm of the ratio of contrasts, its mean over the tenth of the tiles where the second image
        gains most plus its mean over the tenth where it loses most. What is below the noise of either image counts as
        the noise, and the flatter half of the tiles not at all. Changes its sign when the two are swapped.
    """
    noise = np.maximum(blurred.noise, sharp.noise) + 1e-5
    one, other = np.maximum(blurred.contrast, noise), np.maximum(sharp.contrast, noise)
    most = np.maximum(one, other)
    ratio = np.sort(0.5 * np.log(other / one)[most >= np.median(most)])
    tenth = max(1, len(ratio) // 10)
    return float(ratio[-tenth:].mean() + ratio[:tenth].mean())


def blurrier(gains: Sequence[float]) -> list[bool]:
    """Which targets of a set are blurrier than their inputs.

    In a set whose targets are sharper as a rule a pair is suspected on clear evidence only; in a set that is the other
    way round, as after swapping two folders, so is one that is taken for right.

    Args:
        gains: of the pairs, from `gain`.
    """
    limit = CERTAIN if gains and median(gains) < -CERTAIN else -CERTAIN
    return [value < limit for value in gains]


def _noise(fine: np.ndarray, coarse: np.ndarray) -> float:
    """The noise in `fine`, from the flattest twentieth of the tiles, which hold noise and detail."""
    flat = fine <= np.quantile(fine, 0.05)
    both, detail_alone = fine[flat].mean(), coarse[flat].mean()
    noise = (DETAIL_RATIO * both - detail_alone) / (DETAIL_RATIO - NOISE_RATIO)
    return float(np.clip(noise, 0, both))


def _tiles(image: np.ndarray, side: int) -> np.ndarray:
    """Means of the squares of an image; rows and columns that fill none are left out."""
    rows, columns = (length // side for length in image.shape)
    cut = image[: rows * side, : columns * side]
    return cut.reshape(rows, side, columns, side).mean((1, 3)).ravel()
