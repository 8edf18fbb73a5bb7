"""Loads published checkpoints of other networks, through the library spandrel (extra `zoo`).

spandrel infers the architecture from the names and shapes of the tensors. The package spandrel_extra_arches adds
architectures such as Restormer, under other licences; some of these forbid commercial use.
"""

import logging
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kpac.errors import UserError
from kpac.models.torch_files import SUFFIXES, load_content

log = logging.getLogger(__name__)


class ZooNetwork(nn.Module):
    """A network of another project, with kpac's interface: images of any size in [0, 1].

    A network with six input channels, such as dual-pixel Restormer, gets the left view, then the right view. Its
    `views` include the center view: evaluations score it as the input; the network does not read it.

    Images are padded by reflection at the bottom and right to a size that the network accepts; the output is cropped
    back. Outputs are not clamped.

    Args:
        descriptor: spandrel's model descriptor, of a network with 3 or 6 input and 3 output channels.

    Shape: (N, 3, H, W), or (N, 9, H, W) for a dual-pixel network -> (N, 3, H, W).
    """

    def __init__(self, descriptor: Any):
        super().__init__()
        self.core = _Core(descriptor)
        self.is_dual = descriptor.input_channels == 6
        self.views = ("center", "left", "right") if self.is_dual else ("center",)
        self.requirements = descriptor.size_requirements
        self.config = {"name": descriptor.architecture.id, "tags": list(descriptor.tags)}

    @property
    def multiple(self) -> int:
        """Number that divides the height and width of accepted images; 1 if the network has other requirements."""
        simple = not self.requirements.square and self.requirements.minimum <= self.requirements.multiple_of
        return self.requirements.multiple_of if simple else 1

    def forward(self, views: Tensor) -> Tensor:
        views = views[:, 3:] if self.is_dual else views
        height, width = views.shape[-2:]
        right, bottom = self.requirements.get_padding(width, height)
        return self.core(_extended(views, bottom, right))[..., :height, :width]


class _Core(nn.Module):
    """The network without padding; returns only its main output."""

    def __init__(self, descriptor: Any):
        super().__init__()
        self.network = descriptor.model
        self.call = descriptor._call_fn  # spandrel knows how each architecture is called

    def forward(self, image: Tensor) -> Tensor:
        return self.call(self.network, image)


def load_zoo_model(path: Path) -> ZooNetwork:
    """Loads the network of a checkpoint, on the CPU, in evaluation mode. Nothing in the file is executed.

    Args:
        path: .pth, .pt, .ckpt or .safetensors: a state dict, alone or under a usual key such as "params".

    Raises:
        UserError: spandrel is missing, the file is damaged or of an unknown architecture, or its network does not map
            an RGB image, or a left and a right view, to an RGB image of the same size.
    """
    registry, extra = _registry(path)
    import spandrel

    tensors = spandrel.canonicalize_state_dict(read_tensors(path))
    known = f"spandrel {version('spandrel')}" + (f" with spandrel_extra_arches {version(EXTRA)}" if extra else "")
    try:
        descriptor = registry.load(tensors)
    except spandrel.UnsupportedModelError:
        advice = "" if extra else "; for more architectures, pip install spandrel_extra_arches"
        raise UserError(f"{path}: {_kind(path)}its tensors fit no architecture of {known}{advice}") from None
    except (RuntimeError, KeyError, ValueError, AssertionError, IndexError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: looks like an architecture of {known}, but its tensors do not fit ({reason})"
        ) from None
    _check(path, descriptor)
    network = ZooNetwork(descriptor).eval()
    if network.is_dual:
        _require_one_image(path, network, descriptor)
        log.warning("%s: reads six channels: the left, then the right dual-pixel view", path)
    name = descriptor.architecture.id
    if extra and name in [support.architecture.id for support in extra]:
        licence = LICENCES.get(name, "its own licence, which may forbid commercial use")
        log.warning("%s: %s comes from spandrel_extra_arches; its code is under %s", path, name, licence)
    return network


def read_tensors(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of PyTorch or safetensors: tensors and plain values; executes nothing in it.

    Raises:
        UserError: the file is damaged, has another format, or would execute code.
    """
    if path.suffix not in (*SUFFIXES, ".safetensors"):
        raise UserError(f"{path}: expected a checkpoint that ends in {', '.join(SUFFIXES)} or .safetensors")
    found = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else load_content(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds a {type(found).__name__}; expected a state dict of names and tensors")
    return found


EXTRA = "spandrel_extra_arches"
# Licences of the architectures in spandrel_extra_arches 0.2, from the LICENSE file of each in spandrel's repository.
LICENCES = {
    "AdaCode": "CC BY-NC-SA 4.0 (not for commercial use)",
    "CodeFormer": "the S-Lab License 1.0 (not for commercial use)",
    "DDColor": "Alibaba's terms (academic, not for commercial use)",
    "FeMaSR": "CC BY-NC-SA 4.0 (not for commercial use)",
    "M3SNet": "the Academic Public License (not for commercial use, copyleft)",
    "MAT": "CC BY-NC 4.0 (not for commercial use)",
    "MIRNet2": "the Academic Public License (not for commercial use, copyleft)",
    "MPRNet": "the Academic Public License (not for commercial use, copyleft)",
    "Restormer": "the Academic Public License (not for commercial use, copyleft)",
    "SRFormer": "CC BY-NC 4.0 (not for commercial use)",
}


def _registry(path: Path) -> tuple[Any, Any]:
    """All known architectures, and those from spandrel_extra_arches; none of the latter if it is not installed."""
    try:
        import spandrel
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path}: {_kind(path)}a checkpoint of another network needs the package '{error.name}': "
            "pip install 'kpac[zoo]'"
        ) from None
    registry = spandrel.MAIN_REGISTRY.copy()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # an architecture calls torch.jit.script
            from spandrel_extra_arches import EXTRA_REGISTRY
    except ModuleNotFoundError:
        return registry, None
    registry.add(*EXTRA_REGISTRY, ignore_duplicates=True)
    return registry, EXTRA_REGISTRY


def _kind(path: Path) -> str:
    return "a .safetensors file without a 'kpac' header; " if path.suffix == ".safetensors" else ""


def _check(path: Path, descriptor: Any) -> None:
    import spandrel

    name = descriptor.architecture.name
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise UserError(f"{path}: {name} fills holes and needs a mask; expected a network from image to image")
    if descriptor.scale != 1:
        raise UserError(
            f"{path}: {name} enlarges images {descriptor.scale} times; expected an output of the input's size"
        )
    if (descriptor.input_channels, descriptor.output_channels) not in ((3, 3), (6, 3)):
        raise _other_channels(path, descriptor)


def _require_one_image(path: Path, network: ZooNetwork, descriptor: Any) -> None:
    """Checks, by running it, that a network with six input channels makes one image from two views."""
    try:
        with torch.inference_mode():
            fits = network(torch.zeros(1, 9, 16, 16)).shape == (1, 3, 16, 16)
    except RuntimeError:  # other Restormers with six channels add their input to the output
        fits = False
    if not fits:
        raise _other_channels(path, descriptor)


def _other_channels(path: Path, descriptor: Any) -> UserError:
    reads, gives = descriptor.input_channels, descriptor.output_channels
    return UserError(
        f"{path}: {descriptor.architecture.name} has {reads} input and {gives} output channels; expected 3 and 3, or "
        "6 and 3 for a dual-pixel network that makes one image from the left and right views"
    )


def _extended(image: Tensor, bottom: int, right: int) -> Tensor:
    """Pads by reflection at the bottom and right; if the image is too small, repeats its last row or column."""
    for size, amount, sides in (
        (image.shape[-1], right, (0, right, 0, 0)),
        (image.shape[-2], bottom, (0, 0, 0, bottom)),
    ):
        if amount:
            image = F.pad(image, sides, mode="reflect" if amount < size else "replicate")
    return image
