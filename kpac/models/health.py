"""Whether the blocks of a network work: what each contributes, and whether its attention can still move."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kpac.models.kpac import KPACBlock, scale_attention_maps

DEAD_BELOW = 1e-3  # blocks contribute a hundredth of the residual soon after the start, and more later
SATURATED_WITHIN = 0.02  # of 0 or 1; the gradient of the sigmoid is below 8 % of its largest value there


@dataclass(frozen=True)
class BlockHealth:
    """How one KPAC block works in one image.

    Args:
        contribution: change of the network's residual when the block's branches are set to zero, as a fraction of the
            residual: root mean squares over the image. 0 for a dead block, whose output is its fusion's bias. NaN where
            the residual is zero, as before the first step.
        mean_weight: mean weight of scale attention; None without it.
        saturated: share of its weights within `SATURATED_WITHIN` of 0 or 1, which hardly have a gradient; None without.
    """

    contribution: float
    mean_weight: float | None
    saturated: float | None

    @property
    def dead(self) -> bool:
        """Whether the block contributes next to nothing. A small mean weight alone is not death."""
        return self.contribution < DEAD_BELOW

    def numbers(self) -> dict[str, float]:
        """The numbers that there are, by name."""
        numbers = {"contribution": self.contribution, "mean_weight": self.mean_weight, "saturated": self.saturated}
        return {name: value for name, value in numbers.items() if value is not None}


def block_health(network: nn.Module, views: Tensor) -> list[BlockHealth]:
    """The health of every KPAC block, first to last, in one image: a pass of the network for each, and two more.

    Args:
        network: in the mode to look at.
        views: (1, 3V, H, W) in [0, 1].
    """
    blocks = [(name, module) for name, module in network.named_modules() if isinstance(module, KPACBlock)]
    maps = scale_attention_maps(network, views)
    health = []
    with torch.no_grad():
        output = network(views)
        residual = (output - views[:, :3]).double().square().mean().sqrt()
        for name, block in blocks:
            with _without_branches(block):
                change = (network(views) - output).double().square().mean().sqrt()
            weights = maps.get(f"{name}.scale_attention")
            saturated = None
            if weights is not None:
                saturated = float(((weights - 0.5).abs() > 0.5 - SATURATED_WITHIN).float().mean())
            mean = None if weights is None else float(weights.mean())
            health.append(BlockHealth(float(change / residual), mean, saturated))
    return health


@contextmanager
def _without_branches(block: KPACBlock) -> Iterator[None]:
    hook = block.fusion.register_forward_pre_hook(lambda _module, inputs: tuple(map(torch.zeros_like, inputs)))
    try:
        yield
    finally:
        hook.remove()
