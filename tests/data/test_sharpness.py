"""A target is told from its input by where the two differ, whatever their brightness and noise."""

import cv2
import numpy as np
import pytest

from kpac.data.sharpness import blurrier, detail, gain
from kpac.images import from_float
from tests.conftest import texture


def gain_of(blurred: np.ndarray, sharp: np.ndarray) -> float:
    return gain(*(detail(from_float(image, 16)) for image in (blurred, sharp)))


def silhouettes(height: int, width: int) -> np.ndarray:
    """Dark branches before a bright sky, sharp: what contrast alone takes for the sharpest of photographs."""
    image = np.full((height, width, 3), 0.95)
    for column in range(8, width, 24):
        cv2.line(image, (column, 0), (width - column, height), (0.02, 0.02, 0.02), 3)
    return image


@pytest.fixture(params=["texture", "silhouettes before a blurred ground"])
def pair(request):
    """An input and its target: half of the scene is in focus in both."""
    sharp = texture(192, 256, 1)
    if request.param != "texture":
        sharp[:96] = silhouettes(96, 256)
    blurred = sharp.copy()
    blurred[96:] = cv2.GaussianBlur(sharp, (0, 0), 3)[96:]
    return blurred, sharp


def test_swapping_changes_the_sign(pair):
    assert gain_of(*pair) == pytest.approx(-gain_of(*reversed(pair)))


@pytest.mark.parametrize("exposure", [0.4, 1, 0.8])
def test_target_is_sharper_at_any_exposure(pair, exposure):
    blurred, sharp = pair
    assert gain_of(blurred, exposure * sharp) > 0.8
    assert gain_of(exposure * blurred, sharp) > 0.8


@pytest.mark.parametrize("noisy", [0, 1])
def test_noise_in_one_of_them_is_no_sharpness(pair, noisy):
    images = list(pair)
    images[noisy] = images[noisy] + np.random.default_rng(0).normal(0, 0.01, images[noisy].shape)
    assert gain_of(*images) > 0.3


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (16, 24), (2100, 40)])
def test_any_size_has_a_gain(shape):
    sharp = texture(*shape, 3) if min(shape) > 3 else np.full((*shape, 3), 0.5)
    assert gain_of(cv2.GaussianBlur(sharp, (0, 0), 2), sharp) >= 0


def test_doubtful_pairs_follow_the_set():
    right = [1.5, 1.2, -0.4, 0.3]
    assert blurrier(right) == [False, False, False, False]
    assert blurrier([-value for value in right]) == [True, True, True, True]
    assert blurrier([1.5, 1.2, -1.2, 2.0]) == [False, False, True, False]
    assert blurrier([]) == []
