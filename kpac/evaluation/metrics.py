"""PSNR, SSIM and MAE, as the field computes them on DPDD: one value an image, float64 inside."""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 7  # side of SSIM's uniform window


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, of the squared error over all pixels and channels; infinite for equal images.

    Shape: (N, 3, H, W) in [0, 1], twice -> (N,), float64.
    """
    error = (output.double() - target.double()).square().mean(dim=(1, 2, 3))
    return -10 * error.log10()


def mae(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over all pixels and channels.

    Shape: (N, 3, H, W) in [0, 1], twice -> (N,), float64.
    """
    return (output.double() - target.double()).abs().mean(dim=(1, 2, 3))


def ssim(output: Tensor, target: Tensor) -> Tensor:
    """Structural similarity as scikit-image's `structural_similarity` defines it by default, per channel, averaged.

    7x7 uniform window, only where it fits; sample covariance; K1 = 0.01, K2 = 0.03; data range 1.

    Shape: (N, 3, H, W) in [0, 1], twice, H and W at least 7 -> (N,), float64.

    Raises:
        ValueError: an image smaller than the window.
    """
    return similarity(output.double(), target.double())


def similarity(x: Tensor, y: Tensor) -> Tensor:
    """What `ssim` computes, in the precision of its arguments; for losses.

    Shape: (N, C, H, W) in [0, 1], twice, H and W at least 7 -> (N,).

    Raises:
        ValueError: an image smaller than the window.
    """
    if min(x.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs images of {WINDOW}x{WINDOW} or more, found {tuple(x.shape[-2:])}")
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    variance_x = sample * (_window_mean(x * x) - mean_x * mean_x)
    variance_y = sample * (_window_mean(y * y) - mean_y * mean_y)
    covariance = sample * (_window_mean(x * y) - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_x.square() + mean_y.square() + c1) * (variance_x + variance_y + c2))
    return similarity.mean(dim=(1, 2, 3))


def _window_mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, WINDOW, stride=1)


METRICS = {"psnr": psnr, "ssim": ssim, "mae": mae}


def score(output: Tensor, target: Tensor) -> dict[str, float]:
    """All metrics of one image, (3, H, W) in [0, 1]."""
    with torch.no_grad():
        return {name: metric(output[None], target[None]).item() for name, metric in METRICS.items()}
