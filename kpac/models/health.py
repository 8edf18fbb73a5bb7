"""Whether the blocks of a network work: how much each contributes, and whether its attention can still learn."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kpac.models.kpac import KPACBlock
from kpac.models.recording import outputs_of

DEAD_BELOW = 1e-3  # blocks contribute a hundredth of the residual soon after the start, and more later
HEALTH_CROP = 256  # side in pixels of the square crop to measure on: large enough, and cheap
SATURATED_WITHIN = 0.02  # of 0 or 1; the gradient of the sigmoid is below 8 % of its largest value there


@dataclass(frozen=True)
class BlockHealth:
    """How one KPAC block works in one image.

    Args:
        contribution: change of the network's residual when the block's branches are set to zero, as a fraction of the
            residual (both as root mean square over the image). NaN if the residual is zero, as before training.
        mean_weight: mean weight of scale attention; None without it.
        saturated: share of the attention weights within `SATURATED_WITHIN` of 0 or 1, where the gradient almost
            vanishes. The larger of the shares of scale and shape attention; None where the block has neither.
    """

    contribution: float
    mean_weight: float | None
    saturated: float | None

    @property
    def dead(self) -> bool:
        """Whether the block contributes nothing and cannot recover, because its attention has no gradient.

        A small mean weight alone does not make a block dead: its other weights can grow to compensate.
        """
        return self.contribution < DEAD_BELOW and (self.saturated or 0) > 0.5

    def numbers(self) -> dict[str, float]:
        """The measured numbers by name, without those that are None."""
        numbers = {"contribution": self.contribution, "mean_weight": self.mean_weight, "saturated": self.saturated}
        return {name: value for name, value in numbers.items() if value is not None}


def block_health(network: nn.Module, views: Tensor) -> list[BlockHealth]:
    """Measures the health of every KPAC block, first to last, on one image.

    Takes one forward pass per block, and one more.

    Args:
        network: measured in its current mode (training or evaluation).
        views: (1, 3V, H, W) in [0, 1].
    """
    blocks = [module for module in network.modules() if isinstance(module, KPACBlock)]
    health = []
    with torch.no_grad():
        with outputs_of(attention for block in blocks for attention in block.attentions()) as weights:
            output = network(views)
        residual = (output - views[:, :3]).double().square().mean().sqrt()
        for block in blocks:
            with block.fusion.register_forward_pre_hook(lambda _, inputs: tuple(map(torch.zeros_like, inputs))):
                change = (network(views) - output).double().square().mean().sqrt()
            saturated = [_saturated(weights[attention].float()) for attention in block.attentions()]
            mean_weight = float(weights[block.scale_attention].float().mean()) if block.scale_attention else None
            health.append(BlockHealth(float(change / residual), mean_weight, max(saturated, default=None)))
    return health


def _saturated(weights: Tensor) -> float:
    return float(((weights - 0.5).abs() > 0.5 - SATURATED_WITHIN).float().mean())


def center_crop(image: Tensor, size: int) -> Tensor:
    """The center of an image (..., H, W), with no side longer than `size`."""
    top, left = (max(0, (side - size) // 2) for side in image.shape[-2:])
    return image[..., top : top + size, left : left + size]
