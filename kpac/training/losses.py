"""Training losses, composed by name and weight: `losses: {l1: 1.0, perceptual: 0.05}`."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from kpac.config import nearest
from kpac.errors import UserError
from kpac.evaluation.metrics import ssim
from kpac.training.perceptual import PerceptualLoss


class CharbonnierLoss(nn.Module):
    """Mean of sqrt(d^2 + epsilon^2), an L1 that is smooth at 0 (Lai et al., arXiv 1710.01992).

    Shape: (N, 3, H, W), twice -> ().
    """

    def __init__(self, epsilon: float = 1e-3):
        super().__init__()
        self.epsilon = epsilon

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return ((output - target).square() + self.epsilon**2).sqrt().mean()


class PSNRLoss(nn.Module):
    """Minus the mean PSNR of the images, in dB (HINet, Chen et al., arXiv 2105.06086).

    An image with little error counts as much as one with much. Epsilon, 1e-5, is the mean squared error of 0.8 grey
    levels of 255: improving an image below it gains little.

    Shape: (N, 3, H, W) in [0, 1], twice -> ().
    """

    def __init__(self, epsilon: float = 1e-5):
        super().__init__()
        self.epsilon = epsilon

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        error = (output - target).square().mean(dim=(1, 2, 3))
        return 10 * torch.log10(error + self.epsilon).mean()


class SSIMLoss(nn.Module):
    """One minus the mean structural similarity, with the usual 7x7 window of evaluations.

    Shape: (N, 3, H, W) in [0, 1], twice, H and W at least 7 -> ().
    """

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return 1 - ssim(output, target).mean().to(output.dtype)


class FrequencyLoss(nn.Module):
    """L1 between the 2-D Fourier transforms, over real and imaginary parts (MIMO-UNet, Cho et al., arXiv 2108.05054).

    The transform is not normalised, so values are large; MIMO-UNet gives this term the weight 0.1.

    Shape: (N, 3, H, W), twice -> ().
    """

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return torch.view_as_real(torch.fft.fft2(output - target)).abs().mean()


LOSSES: dict[str, Callable[[], nn.Module]] = {
    "l1": nn.L1Loss,
    "mse": nn.MSELoss,
    "charbonnier": CharbonnierLoss,
    "psnr": PSNRLoss,
    "ssim": SSIMLoss,
    "frequency": FrequencyLoss,
    "perceptual": PerceptualLoss,
}


def check_losses(names: Iterable[str]) -> None:
    """Refuses unknown names of losses.

    Raises:
        UserError: an unknown name; the message suggests the nearest one.
    """
    for name in names:
        if name not in LOSSES:
            raise UserError(f"train.losses: no loss is called '{name}'{nearest(name, LOSSES)}")


class WeightedLoss(nn.Module):
    """The weighted sum of named losses.

    Args:
        weights: loss name -> weight.
        perceptual_weights: file of VGG-19's weights for the perceptual loss; None uses torchvision's cache.
        perceptual_dtype: number format of VGG-19's convolutions; everything else is float32.

    Shape: (N, 3, H, W) in [0, 1], twice -> (); also returns each term before weighting, detached, for the log.

    Raises:
        UserError: an unknown loss (the message suggests the nearest name), or no weights for the perceptual loss.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        perceptual_weights: Path | None = None,
        perceptual_dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        check_losses(weights)
        options = {"perceptual": {"weights": perceptual_weights, "dtype": perceptual_dtype}}
        self.weights = dict(weights)
        self.terms = nn.ModuleDict({name: LOSSES[name](**options.get(name, {})) for name in weights})

    def forward(self, output: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(output.device.type, enabled=False):
            terms = {name: term(output.float(), target.float()) for name, term in self.terms.items()}
        total = sum(self.weights[name] * value for name, value in terms.items())
        return total, {name: value.detach() for name, value in terms.items()}
