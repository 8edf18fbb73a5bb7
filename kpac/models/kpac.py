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
    """Weights of the shared kernel's filters, one vector an image (paper, Sec. 3.2).

    The mean over the whole image passes a bottleneck of a quarter of the filters. Training on crops and testing on
    full frames therefore see different statistics, in the published network as here.

    Args:
        channels: channels of the input features.
        filters: filters to weigh.

    Shape: (N, channels, H, W) -> (N, filters, 1, 1), each weight in (0, 1).
    """

    def __init__(self, channels: int, filters: int):
        super().__init__()
        self.squeeze = Conv(channels, filters // 4, 1)
        self.weigh = nn.Conv2d(filters // 4, filters, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        return torch.sigmoid(self.weigh(self.squeeze(mean)))


class KPACBlock(nn.Module):
    """One kernel bank at several dilations in parallel, weighed per pixel and per filter, and fused (paper, Sec. 3.2).

    A defocus blur keeps its shape and changes its size over the image; so does its inverse kernel. Applying one kernel
    at several dilations gives its scales; scale attention picks among them at each pixel, shape attention among the
    filters.

    Args:
        channels: channels of the input and the output.
        filters: filters of the shared kernel; the paper has half of `channels`.
        kernel_size: side of the shared kernel, odd.
        dilations: one parallel branch each.

    Shape: (N, channels, H, W) -> (N, channels, H, W).
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel_size: int = 5,
        dilations: Sequence[int] = (1, 2, 3, 4, 5),
    ):
        super().__init__()
        self.dilations = tuple(dilations)
        self.kernel = nn.Parameter(torch.empty(filters, channels, kernel_size, kernel_size))
        nn.init.normal_(self.kernel, std=0.04)
        self.scale_attention = ScaleAttention(channels, branches=len(self.dilations))
        self.shape_attention = ShapeAttention(channels, filters)
        self.fusion = Conv(len(self.dilations) * filters, channels, 3)

    def branches(self, x: Tensor) -> list[Tensor]:
        """The shared kernel's response at each dilation: a list of (N, filters, H, W)."""
        reach = self.kernel.shape[-1] // 2
        return [activation(F.conv2d(x, self.kernel, padding=d * reach, dilation=d)) for d in self.dilations]

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale_attention(x)  # (N, branches, H, W)
        shape = self.shape_attention(x)  # (N, filters, 1, 1)
        attended = [branch * scale[:, i : i + 1] * shape for i, branch in enumerate(self.branches(x))]
        return self.fusion(torch.cat(attended, dim=1))
