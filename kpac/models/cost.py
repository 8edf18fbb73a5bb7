"""What a network costs: parameters and multiply-accumulates."""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """Args:
    parameters: number of trained values.
    macs: multiply-accumulates of one image of the given size.
    height, width: the size, in pixels.
    """

    parameters: int
    macs: int
    height: int
    width: int


def count_cost(model: nn.Module, height: int, width: int) -> Cost:
    """Counts with PyTorch's own counter, on tensors without data, so that any size takes no time and no memory.

    Args:
        model: a registered network; left as it is.
        height, width: size of the image, in pixels.
    """
    ghost = copy.deepcopy(model).to("meta")
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        ghost(torch.empty(1, 3 * len(model.views), height, width, device="meta"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, counter.get_total_flops() // 2, height, width)
