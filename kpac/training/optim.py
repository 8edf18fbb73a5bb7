"""The optimizer and the learning rate's schedule."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from kpac.config import OptimizerConfig, ScheduleConfig


def make_optimizer(model: nn.Module, config: OptimizerConfig, fused: bool = False) -> torch.optim.Optimizer:
    """Adam over all parameters of a model; `fused` makes a step one kernel."""
    return torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=config.betas, fused=fused)


def make_schedule(optimizer: torch.optim.Optimizer, config: ScheduleConfig, iterations: int) -> LambdaLR:
    """A schedule to step once an iteration; see `rate_factor`."""
    return LambdaLR(optimizer, rate_factor(config, iterations))


def rate_factor(config: ScheduleConfig, iterations: int) -> Callable[[int], float]:
    """The learning rate at an iteration, counted from 0, as a fraction of the configured one."""

    def factor(iteration: int) -> float:
        warm = min(1.0, (iteration + 1) / config.warmup) if config.warmup else 1.0
        if config.name == "constant":
            return warm
        progress = min(1.0, iteration / iterations)
        return warm * (config.final + (1 - config.final) * (1 + math.cos(math.pi * progress)) / 2)

    return factor
