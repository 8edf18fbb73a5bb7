"""LPIPS (Zhang et al., CVPR 2018, arXiv 1801.03924), version 0.1: the `lpips` package with torchvision's weights."""

import pickle
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
import torchvision
from torch import Tensor, nn

from kpac.downloads import download
from kpac.errors import UserError
from kpac.files import sha256_of
from kpac.precision import full_float32

Backbone = Literal["alex", "vgg", "squeeze"]  # the names that the package uses
_TORCHVISION: dict[str, Any] = {
    "alex": ("alexnet", torchvision.models.AlexNet_Weights.IMAGENET1K_V1),
    "vgg": ("vgg16", torchvision.models.VGG16_Weights.IMAGENET1K_V1),
    "squeeze": ("squeezenet1_1", torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1),
}
SMALLEST = 32  # side in pixels; in smaller images the deepest features of some backbone would be empty


class LPIPS(nn.Module):
    """Learned perceptual distance, as the `lpips` package computes it.

    The weights on top of the backbone come with the package. The backbone has torchvision's ImageNet weights, which are
    downloaded once into torch.hub's cache. Their hash is checked, since other weights give other scores.

    Args:
        backbone: "alex" (the field's usual choice), "vgg" or "squeeze".
        weights: torchvision's file; by default the one in torch.hub's cache, downloaded if it is missing.
        centered: maps images from [0, 1] to [-1, 1], the range that the weights expect.

    Shape: (N, 3, H, W), twice, about [0, 1] -> (N,), float64; lower is better.

    Raises:
        UserError: the file is missing and cannot be downloaded, or is not torchvision's file of this backbone.
    """

    def __init__(self, backbone: Backbone = "alex", weights: Path | None = None, centered: bool = True):
        super().__init__()
        self.centered = centered
        path = weights or _downloaded(backbone)
        _check_hash(path, backbone)
        import lpips

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the package uses deprecated arguments of torchvision
            self.network = lpips.LPIPS(net=backbone, version="0.1", pnet_rand=True, verbose=False)
        _fill(self.network.net, path, backbone)
        self.requires_grad_(False).eval()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        if min(output.shape[-2:]) < SMALLEST:
            raise ValueError(f"LPIPS needs images of {SMALLEST}x{SMALLEST} or more, found {tuple(output.shape[-2:])}")
        with torch.no_grad(), full_float32():
            distance = self.network(output.float(), target.float(), normalize=self.centered)
        return distance.flatten().double()


def cached_weights(backbone: Backbone) -> Path:
    """Path of a backbone's weights in torchvision's cache; the file need not exist."""
    _, weights = _TORCHVISION[backbone]
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name


def expected_hash(backbone: Backbone) -> str:
    """First digits of the SHA-256 of torchvision's file, taken from the end of its name."""
    return cached_weights(backbone).stem.rpartition("-")[2]


def _downloaded(backbone: Backbone) -> Path:
    path = cached_weights(backbone)
    try:
        download(_TORCHVISION[backbone][1].url, path, expected_hash(backbone))
    except UserError as error:
        raise UserError(str(error), "lpips_weights") from None
    return path


def _check_hash(path: Path, backbone: Backbone) -> None:
    try:
        found = sha256_of(path)
    except UserError as error:
        raise UserError(f"{error}; expected torchvision's {cached_weights(backbone).name}") from None
    expected = expected_hash(backbone)
    if not found.startswith(expected):
        name = cached_weights(backbone).name
        raise UserError(
            f"{path}: not torchvision's {name}: its SHA-256 should begin with {expected}, found {found[:8]}. Other "
            "weights give other scores; delete the file",
            "lpips_weights",
        )


def _fill(network: nn.Module, path: Path, backbone: Backbone) -> None:
    """Loads torchvision's tensors into the package's backbone, which numbers the layers as torchvision does."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path}: not a file of torchvision's weights ({type(error).__name__}); download it again"
        ) from None
    wanted = {f"features.{key.partition('.')[2]}": key for key in network.state_dict()}
    tensors = {}
    for name, key in wanted.items():
        shape = tuple(network.state_dict()[key].shape)
        tensor = found.get(name) if isinstance(found, dict) else None
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
            raise UserError(
                f"{path}: not the weights of the LPIPS backbone '{backbone}': expected a tensor '{name}' of {shape}"
            )
        tensors[key] = tensor
    network.load_state_dict(tensors)
