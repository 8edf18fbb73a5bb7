"""What a network costs: parameters and multiply-accumulates, by part."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kpac.models.interface import ImageNetwork
from kpac.models.kpac import KPACBlock


@dataclass(frozen=True)
class PartCost:
    """Cost of one part of a network.

    Args:
        name: name of the part, such as "blocks.0.branches".
        parameters: number of trained values.
        macs: multiply-accumulates for one image.
    """

    name: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """Cost of a network for one image.

    Args:
        height, width: size of the image, in pixels.
        parts: cost of each part, in the order of the network; they add up to the whole.
    """

    height: int
    width: int
    parts: tuple[PartCost, ...]

    @property
    def parameters(self) -> int:
        """Number of trained values in the whole network."""
        return sum(part.parameters for part in self.parts)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole network."""
        return sum(part.macs for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """The cost as a JSON object, with the size in pixels and exact counts."""
        return {
            "height": self.height,
            "width": self.width,
            "parameters": self.parameters,
            "macs": self.macs,
            "parts": [vars(part) for part in self.parts],
        }


def count_cost(model: ImageNetwork, height: int, width: int) -> Cost:
    """Counts the parameters and multiply-accumulates of a network, part by part.

    Uses PyTorch's own counter on meta tensors, in negligible time and memory for any image size.

    The parts are the network's children. The blocks of KPACNet's chain are split further, into branches, scale
    attention, shape attention and fusion. In a KPAC block, everything computed outside of its child modules counts as
    "branches".

    Args:
        model: a registered network; not modified.
        height, width: size of the image, in pixels.
    """
    ghost = copy.deepcopy(model).to("meta").eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        ghost(torch.empty(1, 3 * len(model.views), height, width, device="meta"))
    flops = {name: sum(operations.values()) for name, operations in counter.get_flop_counts().items()}
    root = type(ghost).__name__

    def macs(name: str, module: nn.Module) -> int:
        if f"{root}.{name}" in flops:
            return flops[f"{root}.{name}"] // 2
        return sum(macs(f"{name}.{child}", part) for child, part in module.named_children())  # for a ModuleList

    parts = []
    for name, module in _parts(model):
        if isinstance(module, KPACBlock):
            children = [(f"{name}.{child}", part) for child, part in module.named_children() if child != "kernels"]
            inner = [PartCost(child, _count(part), macs(child, part)) for child, part in children]
            own = PartCost(
                f"{name}.branches", _count(module.kernels), macs(name, module) - sum(part.macs for part in inner)
            )
            parts += [own, *inner]
        else:
            parts.append(PartCost(name, _count(module), macs(name, module)))
    rest = PartCost(
        "elsewhere",
        sum(parameter.numel() for parameter in model.parameters()) - sum(part.parameters for part in parts),
        flops["Global"] // 2 - sum(part.macs for part in parts),
    )
    if rest.parameters or rest.macs:
        parts.append(rest)
    return Cost(height, width, tuple(parts))


def _parts(model: ImageNetwork) -> list[tuple[str, nn.Module]]:
    """The network's children by name; a chain of blocks is replaced by its blocks."""
    parts: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        if name == "blocks" and isinstance(child, nn.ModuleList):
            parts += [(f"{name}.{index}", block) for index, block in enumerate(child)]
        else:
            parts.append((name, child))
    return parts


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
