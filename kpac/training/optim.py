"""The optimizer and the learning-rate schedule."""

import math
from bisect import bisect_right
from collections.abc import Callable
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from kpac.config import OptimizerConfig, ScheduleConfig
from kpac.errors import UserError


def make_optimizer(model: nn.Module, config: OptimizerConfig, fused: bool = False) -> torch.optim.Optimizer:
    """Makes Adam (Kingma and Ba, arXiv 1412.6980) or AdamW (Loshchilov and Hutter, arXiv 1711.05101).

    Args:
        model: all its parameters are optimised.
        config: the optimizer, its learning rate, and parameter groups with separate settings.
        fused: computes a step in one fused kernel.

    Raises:
        UserError: a group matches no parameter, or two groups match the same one.
    """
    groups = parameter_groups(model, config)
    common: dict[str, Any] = {"lr": config.learning_rate, "betas": config.betas, "fused": fused}
    if config.name == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay, **common)
    return torch.optim.Adam(groups, **common)


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Parameter groups for `torch.optim`: first the parameters that match no configured group, then each group.

    Raises:
        UserError: a group matches no parameter, or two groups match the same one.
    """
    group_of: dict[str, str] = {}
    names = [name for name, _ in model.named_parameters()]
    groups = {group: settings for group, settings in config.groups.items() if settings}
    for group, settings in groups.items():
        matched = [name for name in names if any(fnmatchcase(name, pattern) for pattern in settings.parameters)]
        key = f"train.optimizer.groups.{group}.parameters"
        if not matched:
            raise UserError(
                f"{key}: {', '.join(settings.parameters)} matches no parameter of the network; "
                f"names are, for example, {', '.join(names[:: max(1, len(names) // 4)][:4])}; null drops the group"
            )
        for name in matched:
            if name in group_of:
                raise UserError(
                    f"{key}: '{name}' is in the group '{group_of[name]}' already; make the patterns disjoint"
                )
            group_of[name] = group
    result: list[dict[str, Any]] = []
    for group in ("", *groups):
        members = [(name, parameter) for name, parameter in model.named_parameters() if group_of.get(name, "") == group]
        own_settings = groups.get(group)
        if members:
            own: dict[str, Any] = {}
            if own_settings:
                own["lr"] = config.learning_rate * own_settings.learning_rate_scale
                if own_settings.weight_decay is not None:
                    own["weight_decay"] = own_settings.weight_decay
            result.append({"params": members, "group": group, **own})
    return result


@torch.no_grad()
def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Loads an optimizer's state, but keeps the optimizer's current learning rates.

    Moments are converted to the memory layout of their parameters, which may have changed with the device or
    `channels_last`: fused kernels pair values by their position in memory. Moments are matched to parameters by name,
    so the parameter groups may have changed, too.
    """
    groups = optimizer.state_dict()["param_groups"]
    moments = state["state"]
    if saved := _names(state["param_groups"]):  # older checkpoints have no names
        by_name = {saved[index]: values for index, values in moments.items()}
        moments = {index: by_name[name] for index, name in enumerate(_names(groups)) if name in by_name}
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.dim() and value.shape == parameter.shape:  # the step count is a scalar
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _names(groups: list[dict[str, Any]]) -> list[str]:
    return [name for group in groups for name in group.get("param_names", [])]


def load_schedule(schedule: LambdaLR, state: dict[str, Any]) -> None:
    """Loads a schedule's position, but keeps the schedule's current shape and rates."""
    schedule.load_state_dict({**state, "base_lrs": schedule.base_lrs})
    for group, rate, factor in zip(
        schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
    ):
        group["lr"] = rate * factor(schedule.last_epoch)


def make_schedule(optimizer: torch.optim.Optimizer, config: ScheduleConfig, iterations: int) -> LambdaLR:
    """Learning-rate schedule, to be stepped once per iteration; see `rate_factor`."""
    return LambdaLR(optimizer, rate_factor(config, iterations))


def rate_factor(config: ScheduleConfig, iterations: int) -> Callable[[int], float]:
    """Returns a function: iteration, counted from 0 -> learning rate, as a fraction of the configured rate.

    It depends only on the iteration, so a resumed run has the same rates as an uninterrupted one.
    """
    shapes = {"constant": _constant, "step": _step, "cosine": _cosine, "cyclic": _cyclic}
    shape = shapes[config.name](config, iterations)

    def factor(iteration: int) -> float:
        warm = min(1.0, (iteration + 1) / config.warmup) if config.warmup else 1.0
        return warm * shape(iteration)

    return factor


def _constant(config: ScheduleConfig, iterations: int) -> Callable[[int], float]:
    return lambda iteration: 1.0


def _step(config: ScheduleConfig, iterations: int) -> Callable[[int], float]:
    milestones, fall = config.milestones or [], 0.5 if config.factor is None else config.factor
    return lambda iteration: fall ** bisect_right(milestones, iteration)


def _cosine(config: ScheduleConfig, iterations: int) -> Callable[[int], float]:
    final = config.final or 0.0
    return lambda iteration: _between(1.0, final, min(1.0, iteration / iterations))


def _cyclic(config: ScheduleConfig, iterations: int) -> Callable[[int], float]:
    periods, finals = config.periods or [], config.finals or []
    ends = list(accumulate(periods))

    def factor(iteration: int) -> float:
        period = bisect_right(ends, iteration)
        if period == len(periods):
            return finals[-1]
        start = ends[period] - periods[period]
        return _between(1.0, finals[period], (iteration - start) / periods[period])

    return factor


def _between(first: float, last: float, progress: float) -> float:
    """Half-cosine interpolation from `first` to `last`, for a progress of 0 to 1."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
