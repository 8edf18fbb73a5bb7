"""Evaluation protocols: named sets of all settings that determine the scores.

Protocols are data: our own are in `protocols.yaml` beside this file, and users can write files of the same form.
"""

from collections.abc import Collection, Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
import yaml
from pydantic import Field, field_validator
from torch import Tensor

from kpac.config import Section, nearest, validate
from kpac.errors import UserError
from kpac.evaluation.metrics import WINDOW, SSIMSettings, luma, mae, psnr, ssim
from kpac.evaluation.perceptual import SMALLEST, Backbone
from kpac.images import BitDepth

Group = str  # "indoor" or "outdoor"


class SSIMSection(Section):
    window: Annotated[int, Field(ge=3)] = WINDOW
    """Side of the uniform window in pixels, odd."""
    gaussian_sigma: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of a Gaussian window in pixels; it sets the side (1.5: 11 pixels). null: uniform window."""
    sample_covariance: bool = True
    """Normalizes covariances by n - 1; false: by n."""
    across_channels: bool = False
    """Uses a three-dimensional window over rows, columns and channels, and repeats the image's edges, as NAFNet's
    script does; false: compares each channel alone, where the window fits."""
    clamped: bool = True
    """Takes the clamped output; false: the output before `clamp`."""

    @field_validator("window")
    @classmethod
    def _is_odd(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError("should be odd")
        return window


class LPIPSSection(Section):
    backbone: Backbone = "alex"
    """alex, vgg or squeeze."""
    clamped: bool = True
    """Takes the clamped output; false: the output before `clamp`."""
    rounded: bool = True
    """Takes the rounded output; false: the output before `rounding`."""
    centered: bool = True
    """Maps images to [-1, 1], the range that LPIPS expects; false: uses images in [0, 1], as GKMNet's script does."""


class Protocol(Section):
    """All settings that determine the scores of an image.

    Metrics compare float images in [0, 1]: PSNR and MAE over all pixels and channels, SSIM per channel. Means are over
    images.
    """

    name: str
    """Name, printed with every score."""
    aliases: tuple[str, ...] = ()
    """Other names of the protocol: the evaluation scripts with the same settings."""
    source: str
    """Who evaluates this way."""
    bit_depth: BitDepth
    """Bit depth at which inputs and targets are read; 8 reads 16-bit files the way OpenCV does by default."""
    downsize: Annotated[int, Field(ge=1)] = 1
    """Factor by which inputs and targets are reduced before the network reads them: the mean over squares with this
    side in pixels (OpenCV's INTER_AREA); rows and columns that do not fill a square are dropped."""
    crop_multiple: Annotated[int, Field(ge=1)] = 1
    """Before the network reads them, crops inputs and targets at the bottom and right to a height and width that are
    multiples of this."""
    clamp: bool = True
    """Clamps the output to [0, 1]."""
    rounding: BitDepth | None = None
    """Bit depth to which the output is rounded, as saving it does; null: no rounding."""
    crop_border: Annotated[int, Field(ge=0)] = 0
    """Width in pixels of the border that is not scored, at every edge."""
    channel: Literal["rgb", "y"] = "rgb"
    """What PSNR, SSIM and MAE compare: the three RGB channels, or Y of YCbCr in the limited range of ITU-R BT.601."""
    data_range: Annotated[float, Field(gt=0)] = 1.0
    """Peak value of PSNR, and SSIM's data range. Images are in [0, 1]: other values than 1 only reproduce scripts."""
    ssim: SSIMSection = SSIMSection()
    """SSIM's window and normalization; the defaults are scikit-image's."""
    lpips: LPIPSSection = LPIPSSection()
    """LPIPS's backbone and input; a name alone, such as `lpips: vgg`, sets the backbone."""
    groups: tuple[Group, ...] = ("indoor", "outdoor")
    """Labels of scenes, such as indoor; each labelled group gets a mean besides the mean of all scenes."""

    @field_validator("lpips", mode="before")
    @classmethod
    def _backbone_alone(cls, value: Any) -> Any:
        return {"backbone": value} if isinstance(value, str) else value

    @property
    def ssim_settings(self) -> SSIMSettings:
        """Settings for `kpac.evaluation.metrics.ssim`."""
        return SSIMSettings(**self.ssim.model_dump(exclude={"clamped"}), data_range=self.data_range)

    def prepare(self, image: Tensor) -> Tensor:
        """Reduces and crops an input or target, (C, H, W), to the protocol's size."""
        if self.downsize > 1:
            image = F.avg_pool2d(image[None], self.downsize)[0]
        rows, columns = (side - side % self.crop_multiple for side in image.shape[-2:])
        return image[..., :rows, :columns]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after `prepare`, from those of the image."""
        rows, columns = (side // self.downsize for side in (height, width))
        return rows - rows % self.crop_multiple, columns - columns % self.crop_multiple

    def check_size(self, height: int, width: int, lpips: bool = False) -> None:
        """Refuses images that are too small.

        Args:
            height, width: size of the image file.
            lpips: whether LPIPS is computed, too.

        Raises:
            ValueError: the image is too small; the message names the metric that needs more pixels.
        """
        needed = {"SSIM": self.ssim_settings.smallest, "LPIPS": SMALLEST if lpips else 0}
        scored = [side - 2 * self.crop_border for side in self.size(height, width)]
        for name, side in needed.items():
            if min(scored) < side:
                cut = f", of which protocol '{self.name}' scores {max(scored[1], 0)}x{max(scored[0], 0)}"
                cut = cut if (self.downsize, self.crop_multiple, self.crop_border) != (1, 1, 0) else ""
                raise ValueError(f"is {width}x{height} pixels{cut}; {name} needs {side}x{side} or more")

    def finish(self, output: Tensor, clamped: bool = True, rounded: bool = True) -> Tensor:
        """Clamps and rounds a network's output as the protocol says; borders and colours are not changed.

        Args:
            output: an image of any range.
            clamped, rounded: False skips the step.
        """
        if self.clamp and clamped:
            output = output.clamp(0, 1)
        if self.rounding and rounded:
            top = 2**self.rounding - 1
            output = torch.round(output.double() * top).div(top).float()
        return output

    def score(self, output: Tensor, target: Tensor) -> dict[str, float]:
        """PSNR, SSIM and MAE of one image.

        Args:
            output: (3, H, W), output of the network, not clamped.
            target: (3, H, W) in [0, 1], from `prepare`.

        Raises:
            ValueError: an image smaller than SSIM's window.
        """
        with torch.no_grad():
            sharp, exact = self._compared(target), self._compared(self.finish(output))
            similar = exact if self.ssim.clamped else self._compared(self.finish(output, clamped=False))
            return {
                "psnr": psnr(exact, sharp, self.data_range).item(),
                "ssim": ssim(similar, sharp, self.ssim_settings).item(),
                "mae": mae(exact, sharp).item(),
            }

    def inside(self, image: Tensor) -> Tensor:
        """Removes the unscored border of an image, (..., H, W)."""
        border = self.crop_border
        return image[..., border:-border, border:-border] if border else image

    def _compared(self, image: Tensor) -> Tensor:
        image = self.inside(image)[None]
        return luma(image) if self.channel == "y" else image

    def settings(self) -> dict[str, Any]:
        """All settings that determine a score, for results.json and for comparison with other protocols."""
        return self.model_dump(mode="json", exclude={"source", "aliases"})

    def gives_the_numbers_of(self, other: "Protocol", sizes: Iterable[tuple[int, int]] = ()) -> bool:
        """Whether this protocol gives the same scores as another one, whatever their names.

        Args:
            other: the other protocol.
            sizes: heights and widths of the images, if known; then `crop_multiple` is ignored if it crops nothing.
        """
        settings = [protocol.model_dump(exclude={"name", "source", "aliases", "groups"}) for protocol in (self, other)]
        if (sizes := list(sizes)) and all(self.size(*size) == other.size(*size) for size in sizes):
            for values in settings:
                del values["crop_multiple"]
        return settings[0] == settings[1]

    def summary(self, metrics: Collection[str] = ("psnr", "ssim", "mae")) -> str:
        """Describes the protocol in one sentence, for a report.

        Args:
            metrics: the computed metrics; settings that concern only other metrics are left out.
        """
        parts = [
            f"inputs{' and targets' if 'ssim' in metrics else ''} read as {self.bit_depth} bits",
            f"made {self.downsize} times smaller by area" if self.downsize > 1 else "full size",
            *([f"cropped to multiples of {self.crop_multiple}"] if self.crop_multiple > 1 else []),
            "output clamped to [0, 1]" if self.clamp else "output not clamped",
            f"rounded to {self.rounding} bits" if self.rounding else "not rounded",
        ]
        if "ssim" in metrics:
            parts += [
                *([f"{self.crop_border} pixels at every edge not scored"] if self.crop_border else []),
                *(["metrics on the Y channel of YCbCr"] if self.channel == "y" else []),
                f"metrics on float images in [0, 1] with data range {self.data_range:g}",
                self.ssim_summary(),
            ]
        if metrics:
            parts.append("mean over images")
        return f"`{self.name}`: {', '.join(parts)}; as in {self.source}"

    def ssim_summary(self) -> str:
        """Describes the SSIM settings in words."""
        ssim = self.ssim
        side = "x".join([str(self.ssim_settings.side)] * (3 if ssim.across_channels else 2))
        window = f"Gaussian {side}, sigma {ssim.gaussian_sigma:g}" if ssim.gaussian_sigma else f"uniform {side}"
        parts = [
            f"SSIM with a window {window}",
            *(["across channels"] if ssim.across_channels else []),
            f"and {'sample' if ssim.sample_covariance else 'population'} covariance",
            *(["before clamping"] if self.clamp and not ssim.clamped else []),
        ]
        return " ".join(parts)


def find_protocol(name: str) -> Protocol:
    """Finds a protocol by its name, or in a user's file.

    Args:
        name: one of ours, such as "dpdd-8bit", or an alias, such as "restormer-single"; or "FILE.yaml:NAME"; or
            "FILE.yaml" for a file with one protocol.

    Raises:
        UserError: an unknown name (the message suggests the nearest one), or a mistake in the file.
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
    names = {alias: protocol for protocol in protocols.values() for alias in (*protocol.aliases, protocol.name)}
    if inside not in names:
        raise UserError(f"{where}no protocol is called '{inside}'{nearest(inside, names)}")
    return names[inside]


@cache
def our_protocols() -> dict[str, Protocol]:
    """The protocols that come with the package, by name."""
    return _parse((files("kpac.evaluation") / "protocols.yaml").read_text(encoding="utf-8"), Path("protocols.yaml"))


def _read(path: Path) -> dict[str, Protocol]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path}: cannot be read; expected a YAML file of protocols") from None
    protocols = _parse(text, path)
    names = {alias: protocol for protocol in our_protocols().values() for alias in (*protocol.aliases, protocol.name)}
    for name, protocol in protocols.items():
        ours = names.get(name)
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
