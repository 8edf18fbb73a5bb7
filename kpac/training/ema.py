"""The exponential moving average of a model's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """Exponential moving average of a model's parameters, kept on the model's device.

    It starts at the model's weights. Buffers, such as those of batch normalisation, are not averaged.

    Args:
        model: its parameters are averaged.
        decay: share of the old average that an update keeps, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards the model's weights."""
        parameters = [value.detach() for value in model.parameters()]
        torch._foreach_lerp_(list(self.weights.values()), parameters, 1 - self.decay)

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Context in which the model has the averaged weights."""
        own = {name: value.data for name, value in model.named_parameters()}
        try:
            for name, value in model.named_parameters():
                value.data = self.weights[name]
            yield
        finally:
            for name, value in model.named_parameters():
                value.data = own[name]

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights, by the names of the parameters."""
        return dict(self.weights)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Loads what `state_dict` returned."""
        for name, value in self.weights.items():
            value.copy_(state[name])
