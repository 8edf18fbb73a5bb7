"""Receptive field of a network: its theoretical reach, and the influence of each input pixel."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from kpac.models.interface import ImageNetwork
from kpac.models.network import KPACNet
from kpac.models.reach import Span, reads


@dataclass(frozen=True)
class ReceptiveField:
    """Influence of the input on one pixel of the output.

    Args:
        influence: side x side, centered on the output pixel; sums to 1.
        reach: numbers of rows above and below the pixel that the layers can read, without shape attention; None for a
            network whose reach is not known.
    """

    influence: np.ndarray
    reach: tuple[int, int] | None

    def radius(self, share: float) -> int:
        """Half the side of the smallest square around the pixel that holds this share of the influence, in pixels."""
        middle = self.influence.shape[0] // 2
        distance = np.abs(np.arange(self.influence.shape[0]) - middle)
        rings = np.bincount(np.maximum(distance[:, None], distance).ravel(), self.influence.ravel())
        return int(np.searchsorted(rings.cumsum(), share * rings.sum()))


def effective_receptive_field(model: ImageNetwork, side: int = 257, images: int = 8, seed: int = 0) -> ReceptiveField:
    """Measures the effective receptive field by gradients (Luo et al., arXiv 1701.04128).

    The influence of an input pixel is the magnitude of the derivative of the residual (output minus center view) at the
    central pixel, summed over channels and views and averaged over images of uniform noise.

    Args:
        model: a registered network, on any device.
        side: side of the images in pixels, odd.
        images: number of images to average over.
        seed: seed of the noise.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    influence = torch.zeros(side, side, dtype=torch.float64)
    for _ in range(images):
        views = torch.rand(1, 3 * len(model.views), side, side, generator=generator).to(device).requires_grad_()
        residual = model(views) - views[:, :3]
        (gradient,) = torch.autograd.grad(residual[..., side // 2, side // 2].sum(), views)
        influence += gradient[0].abs().sum(dim=0).double().cpu()
    total = influence.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return ReceptiveField((influence / total).numpy(), _reach(model, side // 2))


def _reach(model: nn.Module, pixel: int) -> tuple[int, int] | None:
    if type(model) is not KPACNet:
        return None
    (pixels,) = reads(model, Span(pixel, pixel), model.residual)
    return pixel - pixels.first, pixels.last - pixel
