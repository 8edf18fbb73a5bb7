"""Whether the blocks of a network work: what each contributes, and whether its attention can still move."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kpac.models.kpac import KPACBlock

DEAD_BELOW = 1e-3  # blocks contribute a hundredth of the residual soon after the start, and more later
HEALTH_CROP = 256  # pixels: a crop of this side is enough to look at, and cheap
SATURATED_WITHIN = 0.02  # of 0 or 1; the gradient of the sigmoid is below 8 % of its largest value there


@dataclass(frozen=True)
class BlockHealth:
    """How one KPAC block works in one image.

    Args:
        contribution: change of the network's residual when the block's branches are set to zero, as a fraction of the
            residual: root mean squares over the image. NaN where the residual is zero, as before the first step.
        mean_weight: mean weight of scale attention; None without it.
        saturated: share of the weights within `SATURATED_WITHIN` of 0 or 1, which hardly have a gradient: of scale
            attention or of shape attention, whichever is larger; None without both.
    """

    contribution: float
    mean_weight: float | None
    saturated: float | None

    @property
    def dead(self) -> bool:
        """Whether the block contributes nothing, and cannot recover since its gates have no gradient.

        A small mean weight alone is not death: other weights can grow against it.
        """
        return self.contribution < DEAD_BELOW and (self.saturated or 0) > 0.5

    def numbers(self) -> dict[str, float]:
        """The numbers that there are, by name."""
        numbers = {"contribution": self.contribution, "mean_weight": self.mean_weight, "saturated": self.saturated}
        return {name: value for name, value in numbers.items() if value is not None}


def block_health(network: nn.Module, views: Tensor) -> list[BlockHealth]:
    """The health of every KPAC block, first to last, in one image: a pass of the network for each, and one more.

    Args:
        network: in the mode to look at.
        views: (1, 3V, H, W) in [0, 1].
    """
    blocks = [module for module in network.modules() if isinstance(module, KPACBlock)]
    health = []
    with torch.no_grad():
        with _gates(blocks) as gates:
            output = network(views)
        residual = (output - views[:, :3]).double().square().mean().sqrt()
        for block in blocks:
            with _without_branches(block):
                change = (network(views) - output).double().square().mean().sqrt()
            scale, shape = gates.get(block.scale_attention), gates.get(block.shape_attention)
            saturated = [_saturated(weights) for weights in (scale, shape) if weights is not None]
            mean_weight = None if scale is None else float(scale.mean())
            health.append(BlockHealth(float(change / residual), mean_weight, max(saturated, default=None)))
    return health


def _saturated(weights: Tensor) -> float:
    return float(((weights - 0.5).abs() > 0.5 - SATURATED_WITHIN).float().mean())


@contextmanager
def _gates(blocks: list[KPACBlock]) -> Iterator[dict[nn.Module | None, Tensor]]:
    """Collects what the attentions of blocks give in the passes inside."""
    gates: dict[nn.Module | None, Tensor] = {}

    def keep(module: nn.Module, _inputs: object, weights: Tensor) -> None:
        gates[module] = weights.float()

    attentions = [attention for block in blocks for attention in (block.scale_attention, block.shape_attention)]
    hooks = [attention.register_forward_hook(keep) for attention in attentions if attention is not None]
    try:
        yield gates
    finally:
        for hook in hooks:
            hook.remove()


def center_crop(image: Tensor, size: int) -> Tensor:
    """The middle of an image (..., H, W), no side longer than `size`."""
    top, left = (max(0, (side - size) // 2) for side in image.shape[-2:])
    return image[..., top : top + size, left : left + size]


@contextmanager
def _without_branches(block: KPACBlock) -> Iterator[None]:
    hook = block.fusion.register_forward_pre_hook(lambda _module, inputs: tuple(map(torch.zeros_like, inputs)))
    try:
        yield
    finally:
        hook.remove()
