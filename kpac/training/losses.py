"""Training losses, composed by name and weight: `losses: {l1: 1.0}`."""

from collections.abc import Mapping

from torch import Tensor, nn

from kpac.config import nearest
from kpac.errors import UserError

LOSSES: dict[str, type[nn.Module]] = {"l1": nn.L1Loss}


class WeightedLoss(nn.Module):
    """The weighted sum of named losses.

    Args:
        weights: loss name -> weight.

    Shape: (N, 3, H, W) in [0, 1], twice -> (), and each term before weighting, detached, for the log.

    Raises:
        UserError: an unknown loss; the nearest name is given.
    """

    def __init__(self, weights: Mapping[str, float]):
        super().__init__()
        for name in weights:
            if name not in LOSSES:
                raise UserError(f"train.losses: no loss is called '{name}'{nearest(name, LOSSES)}")
        self.weights = dict(weights)
        self.terms = nn.ModuleDict({name: LOSSES[name]() for name in weights})

    def forward(self, output: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        terms = {name: term(output, target) for name, term in self.terms.items()}
        total = sum(self.weights[name] * value for name, value in terms.items())
        return total, {name: value.detach() for name, value in terms.items()}
