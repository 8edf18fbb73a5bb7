"""Small networks that misbehave as tests say, a plugin as users write them."""

import os
import random
import signal
import sys

import numpy as np
import torch
from torch import Tensor, nn

from kpac.models.registry import register


@register("noisy")
class Noisy(nn.Module):
    """Draws from every random generator there is, and kills its process in the pass that DIE_AT says.

    Under torchrun only the process of rank 1 dies, and only the first time.
    """

    views = ("center",)
    passes = 0

    def __init__(self, width: int = 4):
        super().__init__()
        first, second = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.layers = nn.Sequential(first, nn.Dropout(0.2), second)

    def forward(self, views: Tensor) -> Tensor:
        if self.training:
            type(self).passes += 1
            chosen = os.environ.get("RANK", "1") == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
            if chosen and self.passes == int(os.environ.get("DIE_AT", "0")):
                print("rank 1 is killed", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            views = views * (1 + 0.01 * random.random() + 0.01 * np.random.rand())  # noqa: NPY002
        return views + self.layers(views)


@register("lapse")
class Lapse(nn.Module):
    """Scales its input, and gives NaN in some passes.

    Args:
        bad: training passes, counted from 1.
        blind: whether everything outside of training is NaN.
    """

    views = ("center",)

    def __init__(self, bad: list[int] = [], blind: bool = False):  # noqa: B006
        super().__init__()
        self.bad, self.blind, self.passes = bad, blind, 0
        self.scale = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, views: Tensor) -> Tensor:
        self.passes += self.training
        lapse = self.passes in self.bad if self.training else self.blind
        return views * self.scale * (float("nan") if lapse else 1)
