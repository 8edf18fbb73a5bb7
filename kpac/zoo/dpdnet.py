"""DPDNet (Abuolaim and Brown, "Defocus Deblurring Using Dual-Pixel Data", ECCV 2020), as a baseline to train.

Follows the paper and the layers of its public repository; does not read the published weights.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kpac.models.layers import pad_to_multiple
from kpac.models.registry import register

LEVELS = 4  # each halves the size


class DPDNet(nn.Module):
    """U-Net with two convolutions per level. Predicts the sharp image, not a residual.

    Args:
        dual: reads the left and the right view, as published; otherwise the center view alone.
        width: channels of the first level, 64 in the paper; they double at each of the four levels below.
        dropout: rate at the two lowest levels, 0.4 in the public code.

    Shape: (N, 3, H, W) -> (N, 3, H, W) in (0, 1). With `dual`: (N, 9, H, W), whose center view is ignored.
    """

    def __init__(
        self,
        dual: bool = False,
        width: Annotated[int, Field(ge=1)] = 64,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.4,
    ):
        super().__init__()
        self.dual = dual
        self.views = ("center", "left", "right") if dual else ("center",)
        self.multiple = 2**LEVELS
        widths = [width * 2**level for level in range(LEVELS + 1)]
        self.encoder = nn.ModuleList(
            _pair(before, after) for before, after in zip([6 if dual else 3, *widths[:-1]], widths, strict=True)
        )
        self.dropout = nn.Dropout(dropout)
        self.upward = nn.ModuleList(nn.Conv2d(2 * after, after, 2) for after in reversed(widths[:-1]))
        self.decoder = nn.ModuleList(_pair(2 * after, after) for after in reversed(widths[:-1]))
        self.output = nn.Sequential(nn.Conv2d(width, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Sigmoid())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, views: Tensor) -> Tensor:
        height, width = views.shape[-2:]
        x = pad_to_multiple(views[:, 3:] if self.dual else views, self.multiple)
        skips: list[Tensor] = []
        for level, convolutions in enumerate(self.encoder):
            x = convolutions(x if level == 0 else F.max_pool2d(x, 2))
            x = self.dropout(x) if level >= LEVELS - 1 else x
            skips.append(x)
        for skip, upward, convolutions in zip(reversed(skips[:-1]), self.upward, self.decoder, strict=True):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.relu(upward(F.pad(x, (0, 1, 0, 1))))  # TensorFlow's "same" padding of an even kernel
            x = convolutions(torch.cat([skip, x], dim=1))
        return self.output(x)[..., :height, :width]


def _pair(before: int, after: int) -> nn.Sequential:
    first, second = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


register("dpdnet", dual=False)(DPDNet)
register("dpdnet_dual", dual=True)(DPDNet)
