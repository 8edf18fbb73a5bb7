"""Protocols: everything that fixes an evaluation number, under a name that is printed beside it.

They are data: `protocols.yaml` beside this file, and files of the same form that users write.
"""

from collections.abc import Collection
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import yaml
from pydantic import Field, field_validator
from torch import Tensor

from kpac.config import Section, nearest, validate
from kpac.data.images import BitDepth
from kpac.errors import UserError
from kpac.evaluation.metrics import WINDOW, SSIMSettings
from kpac.evaluation.perceptual import Backbone

Group = str  # "indoor" or "outdoor"


class SSIMSection(Section):
    window: Annotated[int, Field(ge=3)] = WINDOW
    """Side of the uniform window, odd."""
    gaussian_sigma: Annotated[float, Field(gt=0)] | None = None
    """Deviation of a Gaussian window, which then has a side of its own; null for the uniform one."""
    sample_covariance: bool = True
    """Normalizes by n - 1; false: by n."""

    @field_validator("window")
    @classmethod
    def _is_odd(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError("should be odd")
        return window


class Protocol(Section):
    """How images become numbers.

    Metrics compare float images in [0, 1]: PSNR and MAE over all pixels and channels, SSIM per channel. Means are over
    images.
    """

    name: str
    """Printed beside every number."""
    source: str
    """Who computes numbers this way."""
    bit_depth: BitDepth
    """At which inputs and targets are read; 8 reads 16-bit files the way OpenCV's default does."""
    downsize: Annotated[int, Field(ge=1)] = 1
    """Inputs and targets are made so many times smaller before the network sees them, by the mean over squares of so
    many pixels a side (OpenCV's INTER_AREA); rows and columns that fill no square are dropped."""
    clamp: bool = True
    """Clamps the output to [0, 1]."""
    rounding: BitDepth | None = None
    """Rounds the output to so many bits, as saving it does; null: not at all."""
    data_range: Annotated[float, Field(gt=0)] = 1.0
    """Peak value in PSNR, and SSIM's data range. 1 is right for images in [0, 1]; others reproduce others' numbers."""
    ssim: SSIMSection = SSIMSection()
    """SSIM's window and normalization; the defaults are scikit-image's."""
    lpips: Backbone = "alex"
    """LPIPS's backbone: alex, vgg or squeeze."""
    groups: tuple[Group, ...] = ("indoor", "outdoor")
    """Labels of scenes that get means of their own, beside the mean of all."""

    @property
    def ssim_settings(self) -> SSIMSettings:
        """What `kpac.evaluation.metrics.ssim` takes."""
        return SSIMSettings(**self.ssim.model_dump(), data_range=self.data_range)

    def prepare(self, image: Tensor) -> Tensor:
        """An input or target, (C, H, W), at the protocol's size."""
        return image if self.downsize == 1 else F.avg_pool2d(image[None], self.downsize)[0]

    def finish(self, output: Tensor) -> Tensor:
        """A network's output as it is scored."""
        if self.clamp:
            output = output.clamp(0, 1)
        if self.rounding:
            top = 2**self.rounding - 1
            output = torch.round(output.double() * top).div(top).float()
        return output

    def settings(self) -> dict[str, Any]:
        """All that fixes a number, for results.json and to compare with another protocol's."""
        return self.model_dump(mode="json", exclude={"source"})

    def summary(self, metrics: Collection[str] = ("psnr", "ssim", "mae")) -> str:
        """One sentence for a report.

        Args:
            metrics: that were computed; what concerns others alone is left out.
        """
        ssim = self.ssim
        window = (
            f"Gaussian, sigma {ssim.gaussian_sigma:g}"
            if ssim.gaussian_sigma
            else f"uniform {ssim.window}x{ssim.window}"
        )
        parts = [
            f"inputs{' and targets' if 'ssim' in metrics else ''} read as {self.bit_depth} bits",
            f"made {self.downsize} times smaller by area" if self.downsize > 1 else "full size",
            "output clamped to [0, 1]" if self.clamp else "output not clamped",
            f"rounded to {self.rounding} bits" if self.rounding else "not rounded",
        ]
        if "ssim" in metrics:
            parts += [
                f"metrics on float images in [0, 1] with data range {self.data_range:g}",
                f"SSIM with a window {window} and {'sample' if ssim.sample_covariance else 'population'} covariance",
            ]
        if metrics:
            parts.append("mean over images")
        return f"`{self.name}`: {', '.join(parts)}; as in {self.source}"


def find_protocol(name: str) -> Protocol:
    """The protocol of a name, or of a user's file.

    Args:
        name: one of ours, such as "dpdd-8bit"; or "FILE.yaml:NAME"; or "FILE.yaml" that holds one protocol.

    Raises:
        UserError: no protocol has that name, the nearest one is given; or a mistake in the file.
    """
    path, colon, inside = name.rpartition(":")
    path, inside = (path, inside) if colon and path.endswith((".yaml", ".yml")) else (name, "")
    if not path.endswith((".yaml", ".yml")):
        protocols, where = our_protocols(), ""
        inside = name
    else:
        protocols, where = _read(Path(path)), f"{path}: "
        if not inside and len(protocols) > 1:
            raise UserError(f"{path}: holds several protocols; name one: {', '.join(f'{path}:{n}' for n in protocols)}")
        inside = inside or next(iter(protocols))
    if inside not in protocols:
        raise UserError(f"{where}no protocol is called '{inside}'{nearest(inside, protocols)}")
    return protocols[inside]


@cache
def our_protocols() -> dict[str, Protocol]:
    """Our protocols, by name."""
    return _parse((files("kpac.evaluation") / "protocols.yaml").read_text(encoding="utf-8"), Path("protocols.yaml"))


def _read(path: Path) -> dict[str, Protocol]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path}: cannot be read; expected a YAML file of protocols") from None
    protocols = _parse(text, path)
    for name, protocol in protocols.items():
        ours = our_protocols().get(name)
        if ours and ours.settings() != protocol.settings():
            raise UserError(f"{path}: '{name}' is the name of a protocol with other settings; choose another name")
    return protocols


def _parse(text: str, path: Path) -> dict[str, Protocol]:
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(tree, dict) or not tree or not all(isinstance(values, dict) for values in tree.values()):
        raise UserError(f"{path}: expected names of protocols, each with its settings, such as 'bit_depth: 8'")
    return {
        str(name): validate(Protocol, {"name": str(name), **values}, [(str(path), {str(name): values})], str(name))
        for name, values in tree.items()
    }
