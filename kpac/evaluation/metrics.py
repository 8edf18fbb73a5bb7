"""PSNR, SSIM and MAE, as the field's evaluation scripts compute them: one value per image, computed in float64."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

METRIC_NAMES = ("psnr", "ssim", "mae", "lpips", "niqe", "musiq")  # all that results can hold, in the order of tables
WINDOW = 7  # side of SSIM's uniform window
# Number of values that a CPU processes at a time. Intermediate results then stay in its cache, and PyTorch does not
# split so few values among threads, which would only add waiting. Measured by benchmarks/metrics.py.
BAND = 2**15


@dataclass(frozen=True)
class SSIMSettings:
    """Settings of SSIM; the defaults are those of scikit-image's `structural_similarity`.

    Args:
        window: side of the uniform window in pixels, odd; not used by a Gaussian window, which ends at 3.5 sigma.
        gaussian_sigma: sigma of a Gaussian window in pixels, 1.5 in Wang et al., 2004; None for a uniform window.
        data_range: difference between the largest and the smallest possible value of an image.
        sample_covariance: normalizes covariances by n - 1 instead of n, for windows of n pixels.
        across_channels: uses a window over rows, columns and channels, centered on every pixel and channel; the image
            is extended by repeating its edges. Otherwise each channel is compared alone, where the window fits.
    """

    window: int = WINDOW
    gaussian_sigma: float | None = None
    sample_covariance: bool = True
    data_range: float = 1.0
    across_channels: bool = False

    @property
    def side(self) -> int:
        """Side of the window, in pixels."""
        return 2 * int(3.5 * self.gaussian_sigma + 0.5) + 1 if self.gaussian_sigma else self.window

    @property
    def smallest(self) -> int:
        """Smallest height and width of an image, in pixels."""
        return 1 if self.across_channels else self.side

    def weights(self, like: Tensor) -> Tensor:
        """Weights along one side of the window, with sum 1, in the type and on the device of a tensor."""
        if not self.gaussian_sigma:
            return torch.full((self.side,), 1 / self.side, dtype=like.dtype, device=like.device)
        place = torch.arange(self.side, dtype=like.dtype, device=like.device) - self.side // 2
        weights = torch.exp(-0.5 * (place / self.gaussian_sigma) ** 2)
        return weights / weights.sum()


DEFAULT_SSIM = SSIMSettings()


def psnr(output: Tensor, target: Tensor, data_range: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in dB, from the mean squared error over all pixels and channels.

    It is infinite for equal images.

    Shape: (N, 3, H, W) in [0, 1], twice -> (N,), float64.
    """
    error = (output.double() - target.double()).square().mean(dim=(1, 2, 3))
    return 10 * (data_range**2 / error).log10()


def mae(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over all pixels and channels.

    Shape: (N, 3, H, W) in [0, 1], twice -> (N,), float64.
    """
    return (output.double() - target.double()).abs().mean(dim=(1, 2, 3))


def ssim(output: Tensor, target: Tensor, settings: SSIMSettings = DEFAULT_SSIM) -> Tensor:
    """Structural similarity (Wang et al., 2004), by default as scikit-image's `structural_similarity` computes it.

    K1 = 0.01, K2 = 0.03. By default the window is uniform, 7x7, with sample covariance and data range 1. The result is
    the mean over channels and window positions. Differentiable.

    Shape: (N, C, H, W) in [0, 1], twice, H and W at least the window's side -> (N,), float64.

    Raises:
        ValueError: an image smaller than the window.
    """
    if settings.across_channels:
        return _ssim_across_channels(output.double(), target.double(), settings)
    side = settings.side
    height, width = output.shape[-2:]
    if min(height, width) < side:
        raise ValueError(f"SSIM needs images of {side}x{side} or more, found {(height, width)}")
    if output.device.type != "cpu":
        return _ssim_at_once(output, target, settings)
    rows, columns = height - side + 1, width - side + 1
    band = max(BAND // width - side + 1, side)
    total = output.new_zeros(len(output), dtype=torch.float64)
    for top in range(0, rows, band):
        part = slice(top, min(top + band, rows) + side - 1)
        for x, y in zip(output[..., part, :].unbind(1), target[..., part, :].unbind(1), strict=True):
            total = total + _similarity(x.double(), y.double(), settings, _uniform_mean).sum(dim=(-2, -1))
    return total / (output.shape[1] * rows * columns)


def _ssim_at_once(output: Tensor, target: Tensor, settings: SSIMSettings) -> Tensor:
    """`ssim` for GPUs: each operation takes all channels and rows, because launches take longer than the work."""
    x, y = (images.double().flatten(0, 1) for images in (output, target))
    return _similarity(x, y, settings, _pooled_mean).unflatten(0, output.shape[:2]).mean(dim=(1, 2, 3))


def _similarity(x: Tensor, y: Tensor, settings: SSIMSettings, uniform_mean: Callable[[Tensor, int], Tensor]) -> Tensor:
    """SSIM at every position of the window; (N, H, W), twice -> (N, H - side + 1, W - side + 1)."""
    if settings.gaussian_sigma:
        return _ssim_map(x, y, partial(_weighted_mean, weights=settings.weights(x)), settings.side**2, settings)
    return _ssim_map(x, y, lambda image: uniform_mean(image, settings.side), settings.side**2, settings)


def _ssim_across_channels(x: Tensor, y: Tensor, settings: SSIMSettings) -> Tensor:
    """SSIM with a window over rows, columns and channels; (N, C, H, W), twice -> (N,)."""
    margin = settings.side // 2
    weights = settings.weights(x)
    # The first and last channel are repeated at the ends, so the window's sum over channels is a small matrix product.
    channels = x.shape[1]
    source = (torch.arange(channels)[:, None] + torch.arange(settings.side) - margin).clamp(0, channels - 1)
    mixing = torch.zeros(channels, channels, dtype=x.dtype, device=x.device)
    mixing.scatter_add_(1, source.to(x.device), weights.expand(channels, -1))

    def mean(image: Tensor) -> Tensor:
        padded = F.pad(image, (margin,) * 4, mode="replicate").flatten(0, 1)
        return torch.einsum("dc,nchw->ndhw", mixing, _weighted_mean(padded, weights).unflatten(0, image.shape[:2]))

    return _ssim_map(x, y, mean, settings.side**3, settings).mean(dim=(1, 2, 3))


def _ssim_map(x: Tensor, y: Tensor, mean: Callable[[Tensor], Tensor], values: int, settings: SSIMSettings) -> Tensor:
    """SSIM at every position of a window.

    Args:
        x, y: images.
        mean: gives the mean over the window at every position.
        values: number of values in the window.
        settings: settings of SSIM.
    """
    sample = values / (values - 1) if settings.sample_covariance else 1
    mean_x, mean_y = mean(x), mean(y)
    squares, mixed = mean_x * mean_x + mean_y * mean_y, mean_x * mean_y
    # SSIM needs only the sum of both variances; this takes one window mean fewer than computing each.
    variances = sample * (mean(x * x + y * y) - squares)
    covariance = sample * (mean(x * y) - mixed)
    c1, c2 = (0.01 * settings.data_range) ** 2, (0.03 * settings.data_range) ** 2
    return (2 * mixed + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))


def _pooled_mean(x: Tensor, side: int) -> Tensor:
    """Mean over a window in a single operation."""
    return F.avg_pool2d(x[:, None], side, stride=1)[:, 0]


def _uniform_mean(x: Tensor, side: int) -> Tensor:
    """The same in fewer additions, faster on a CPU."""
    return _running_sum(_running_sum(x, -2, side), -1, side) / side**2


def _running_sum(x: Tensor, dimension: int, side: int) -> Tensor:
    """Sums of `side` neighbours, by doubling: for side 7, 4 additions per value instead of 6."""
    count = x.shape[dimension] - side + 1
    total: Tensor | None = None
    start, length = 0, 1
    while True:
        if side & length:
            term = x.narrow(dimension, start, count)
            total = term if total is None else total + term
            start += length
        if 2 * length > side:
            assert total is not None  # `side` is positive, so at least one bit is set
            return total
        size = x.shape[dimension] - length
        x = x.narrow(dimension, 0, size) + x.narrow(dimension, length, size)
        length *= 2


def _weighted_mean(x: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over a window, (N, H, W) -> (N, H - side + 1, W - side + 1)."""
    x = F.conv2d(x[:, None], weights.view(1, 1, -1, 1))
    return F.conv2d(x, weights.view(1, 1, 1, -1))[:, 0]


def luma(image: Tensor) -> Tensor:
    """The Y channel of YCbCr in the limited range of ITU-R BT.601, as MATLAB's `rgb2ycbcr` gives it.

    Shape: (..., 3, H, W), RGB in [0, 1] -> (..., 1, H, W), in [16/255, 235/255].
    """
    red, green, blue = image.double().split(1, dim=-3)
    return (16 + 65.481 * red + 128.553 * green + 24.966 * blue) / 255
