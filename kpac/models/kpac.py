"""The KPAC block: kernel-sharing parallel atrous convolutions (paper, Sec. 3.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kpac.models.layers import Conv, activation


class ScaleAttention(nn.Module):
    """Per-pixel weights of the parallel branches (paper, Sec. 3.2).

    Five 5x5 convolutions, the first four dilated by 2, see 37 positions around each feature: enough to tell how large
    the blur is there.

    Args:
        channels: channels of the input features.
        branches: number of dilations to weigh.

    Shape: (N, channels, H, W) -> (N, branches, H, W), each weight in (0, 1).
    """

    def __init__(self, channels: int, branches: int):
        super().__init__()
        self.features = nn.Sequential(
            Conv(channels, 32, 5, dilation=2),
            Conv(32, 32, 5, dilation=2),
            Conv(32, 16, 5, dilation=2),
            Conv(16, 16, 5, dilation=2),
        )
        self.weigh = nn.Conv2d(16, branches, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.weigh(self.features(x)))


class ShapeAttention(nn.Module):
    """Weights of the shared kernel's filters, one vector per image (paper, Sec. 3.2).

    The features are averaged over the whole image; the mean passes a bottleneck with a quarter of the filters. Training
    on crops and testing on full frames therefore see different statistics, in the published network too.

    With a `window`, each position gets the mean over the window around it instead, and so its own vector of weights. A
    window of the size of the training crops makes the statistics agree (test-time local converter, Chu et al., arXiv
    2112.04491). Features no larger than the window, such as those of training crops, have one mean for all positions.

    Args:
        channels: channels of the input features.
        filters: filters to weigh.
        window: height and width of the local mean, in positions of the input features; None for the whole image.

    Shape: (N, channels, H, W) -> (N, filters, 1, 1), or (N, filters, H, W) with a window; each weight in (0, 1).
    """

    def __init__(self, channels: int, filters: int, window: tuple[int, int] | None = None):
        super().__init__()
        self.squeeze = Conv(channels, filters // 4, 1)
        self.weigh = nn.Conv2d(filters // 4, filters, 1)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        return self.from_mean(local_mean(x, self.window) if self.window else x.mean(dim=(2, 3), keepdim=True))

    def from_mean(self, mean: Tensor) -> Tensor:
        """Weights from averaged features: (N, channels, H, W) -> (N, filters, H, W); H and W may be 1."""
        return torch.sigmoid(self.weigh(self.squeeze(mean)))


class KPACBlock(nn.Module):
    """One kernel bank at several dilations in parallel, weighed per pixel and per filter, and fused (paper, Sec. 3.2).

    A defocus blur keeps its shape and changes its size over the image; so does its inverse kernel. Applying one kernel
    at several dilations gives its scales; scale attention picks among them at each pixel, shape attention among the
    filters. Each of the three can be switched off for an ablation.

    Args:
        channels: channels of the input and the output.
        filters: filters of the shared kernel; the paper has half of `channels`.
        kernel_size: side of the shared kernel, odd.
        dilations: dilations of the parallel branches, one branch each.
        share_kernel: False gives each branch its own kernel.
        scale_attention: False weighs every branch by one everywhere.
        shape_attention: False weighs every filter by one.
        shape_window: see `ShapeAttention`.

    Shape: (N, channels, H, W) -> (N, channels, H, W). When the input is a tile of larger features, pass the shape
    attention of the whole features, (N, filters, 1, 1) or (N, filters, H, W), as the second argument.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel_size: int = 5,
        dilations: Sequence[int] = (1, 2, 3, 4, 5),
        share_kernel: bool = True,
        scale_attention: bool = True,
        shape_attention: bool = True,
        shape_window: tuple[int, int] | None = None,
    ):
        super().__init__()
        self.dilations = tuple(dilations)
        kernels = 1 if share_kernel else len(self.dilations)
        shape = (filters, channels, kernel_size, kernel_size)
        self.kernels = nn.ParameterList(torch.empty(shape).normal_(std=0.04) for _ in range(kernels))
        self.scale_attention = ScaleAttention(channels, len(self.dilations)) if scale_attention else None
        self.shape_attention = ShapeAttention(channels, filters, shape_window) if shape_attention else None
        self.fusion = Conv(len(self.dilations) * filters, channels, 3)

    def attentions(self) -> list[ScaleAttention | ShapeAttention]:
        """The attention modules that the block has."""
        return [attention for attention in (self.scale_attention, self.shape_attention) if attention is not None]

    def branches(self, x: Tensor) -> list[Tensor]:
        """The kernel's response at each dilation: a list of (N, filters, H, W)."""
        kernels = list(self.kernels) if len(self.kernels) > 1 else [self.kernels[0]] * len(self.dilations)
        reach = self.kernels[0].shape[-1] // 2
        return [
            activation(F.conv2d(x, kernel, padding=dilation * reach, dilation=dilation))
            for kernel, dilation in zip(kernels, self.dilations, strict=True)
        ]

    def forward(self, x: Tensor, shape: Tensor | None = None) -> Tensor:
        branches = self.branches(x)
        if self.scale_attention is not None:
            scale = self.scale_attention(x)  # (N, branches, H, W)
            branches = [branch * scale[:, i : i + 1] for i, branch in enumerate(branches)]
        if self.shape_attention is not None:
            if shape is None:
                shape = self.shape_attention(x)  # (N, filters, 1, 1), or (N, filters, H, W) with a window
            branches = [branch * shape for branch in branches]
        return self.fusion(torch.cat(branches, dim=1))


class PlainBlock(nn.Sequential):
    """Baseline for a KPAC block: a chain of ordinary convolutions with about as many parameters.

    Args:
        channels: channels of the input and the output.
        kernel_size: side of every convolution, odd.
        parameters: number of parameters to match; sets the number of convolutions, at least one.

    Shape: (N, channels, H, W) -> (N, channels, H, W).
    """

    def __init__(self, channels: int, kernel_size: int, parameters: int):
        each = channels * (channels * kernel_size**2 + 1)
        count = max(1, round(parameters / each))
        super().__init__(*(Conv(channels, channels, kernel_size) for _ in range(count)))


def local_mean(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Mean over a window around each position; near a border, over the nearest window that fits inside.

    A window as large as the features gives one mean for all positions. Computed from running sums in float64, so that
    the time does not depend on the window size.

    Shape: (N, C, H, W) -> (N, C, H, W), or (N, C, 1, 1) if the window covers everything.
    """
    height, width = x.shape[-2:]
    rows, columns = min(window[0], height), min(window[1], width)
    if (rows, columns) == (height, width):
        return x.mean(dim=(2, 3), keepdim=True)
    sums = F.pad(x.double().cumsum(2).cumsum(3), (1, 0, 1, 0))
    sums = sums[:, :, rows:] - sums[:, :, :-rows]
    sums = sums[:, :, :, columns:] - sums[:, :, :, :-columns]
    mean = (sums / (rows * columns)).to(x.dtype)
    above, before = (rows - 1) // 2, (columns - 1) // 2
    return F.pad(mean, (before, columns - 1 - before, above, rows - 1 - above), mode="replicate")
