"""The perceptual loss: distances between features of VGG-19."""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from kpac.downloads import download
from kpac.errors import UserError

LAYERS = 27  # the first layers of torchvision's VGG-19, up to conv4_4 and its ReLU
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as for torchvision's weights


class PerceptualLoss(nn.Module):
    """Mean squared distance between VGG-19's features after conv4_4 (Johnson et al., arXiv 1603.08155).

    The authors' code of KPAC defines this feature network, but gives neither the distance nor the weight of the loss.
    The features of the target carry no gradient, and VGG-19 is not trained.

    Args:
        weights: a file with torchvision's VGG-19; None uses torchvision's cache, downloading the file once.
        dtype: number format of VGG's convolutions (autocast); the distance is always computed in float32 or more.

    Shape: (N, 3, H, W) in [0, 1], twice, H and W at least 16 -> ().

    Raises:
        UserError: the weights are missing, or the file holds something else.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, weights: Path | None = None, dtype: torch.dtype = torch.float32):
        super().__init__()
        from torchvision.models import vgg19

        features = vgg19(weights=None).features[:LAYERS]
        for layer in features:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        _load(features, weights)
        self.dtype = dtype
        self.features = features.eval().requires_grad_(False)
        for name, values in (("mean", MEAN), ("deviation", DEVIATION)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "PerceptualLoss":
        """Keeps the network in evaluation mode, whatever `mode` is."""
        return super().train(False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            expected = self.describe(target)
        return (self.describe(output) - expected).square().mean()

    def describe(self, image: Tensor) -> Tensor:
        """Features of images, (N, 3, H, W) -> (N, 512, H / 8, W / 8)."""
        image = (image - self.mean) / self.deviation
        with torch.autocast(image.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            features = self.features(image)
        return features.to(image.dtype)


def _load(features: nn.Module, path: Path | None) -> None:
    from torchvision.models import VGG19_Weights

    url = VGG19_Weights.IMAGENET1K_V1.url
    name = Path(url).name
    if path is None:
        path = Path(torch.hub.get_dir()) / "checkpoints" / name
        try:
            download(url, path, path.stem.rpartition("-")[2])  # the name ends with the beginning of the SHA-256
        except UserError as error:
            raise error.within("the perceptual loss needs VGG-19's weights, or train.perceptual_weights") from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected VGG-19's weights, {name}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise UserError(f"{path}: not a weights file; expected torchvision's {name}") from None
    prefix = "features."
    wanted = features.state_dict()
    found = {key.removeprefix(prefix): value for key, value in state.items()} if isinstance(state, dict) else {}
    for key, value in wanted.items():
        if key not in found or found[key].shape != value.shape:
            problem = f"{prefix}{key} is missing or of another shape"
            raise UserError(f"{path}: not VGG-19 ({problem}); expected torchvision's {name}")
    features.load_state_dict({key: found[key] for key in wanted})
