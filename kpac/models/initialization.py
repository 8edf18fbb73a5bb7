"""Initial weights of a network."""

import math

import torch
from torch import nn

from kpac.models.kpac import KPACBlock
from kpac.models.layers import LEAKY_SLOPE, UpConv


def initialize(network: nn.Module, scheme: str, last: nn.Conv2d, fusion: nn.Conv2d) -> None:
    """Draws the initial weights of `network` from torch's default generator; every bias is zero.

    Args:
        network: all its parameters are initialized in place.
        scheme: "authors": normal with standard deviation 0.04 everywhere, as in the published config.
            "he": normal with standard deviation sqrt(2 / ((1 + 0.2^2) fan_in)) (He et al., arXiv 1502.01852), which
            keeps the scale of the signal at any width. Three sets of weights start at zero instead, so that no block
            dies (docs/training.md):
            `last`, so that training starts from the identity;
            the last convolution of each attention, so that every attention weight starts at one half, where the
            sigmoid is steepest;
            the weights of `fusion` that read the blocks. Otherwise the blocks start as noise, and their attention
            learns to suppress it before their kernels have learned anything.
            The fusion inside a block reads features that each attention has halved; its weights are drawn larger, to
            compensate.
        last: the convolution that produces the residual.
        fusion: the convolution that reads the features of the encoder and then of each block; each has as
            many channels as the output of `fusion`.
    """
    for parameter in network.parameters():
        if parameter.dim() == 1:
            nn.init.zeros_(parameter)
        elif scheme == "authors":
            nn.init.normal_(parameter, std=0.04)
        else:
            nn.init.kaiming_normal_(parameter, a=LEAKY_SLOPE)
    if scheme == "he":
        for module in network.modules():
            if isinstance(module, UpConv):  # each output sums kernel / stride taps per axis and input channel
                taps = math.prod(module.kernel_size) / math.prod(module.stride)
                nn.init.normal_(module.weight, std=math.sqrt(2 / ((1 + LEAKY_SLOPE**2) * module.in_channels * taps)))
            elif isinstance(module, KPACBlock):
                for attention in module.attentions():
                    nn.init.zeros_(attention.weigh.weight)
                    module.fusion.weight.data.mul_(2)
        with torch.no_grad():
            last.weight.zero_()
            fusion.weight[:, fusion.out_channels :] = 0
