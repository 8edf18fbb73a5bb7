"""Computes all metrics of an evaluation for an image."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from kpac.errors import UserError
from kpac.evaluation.perceptual import LPIPS
from kpac.evaluation.protocols import Protocol
from kpac.evaluation.provenance import describe_metric

NO_REFERENCE = ("niqe", "musiq")


class Scorer:
    """Scores images under a protocol.

    Args:
        protocol: settings of the metrics.
        device: device for LPIPS and the no-reference metrics.
        perceptual: computes LPIPS, too, if the weights of its backbone are available.
        lpips_weights: a file with these weights; by default torchvision's cache.
        no_reference: metrics without a target, from `NO_REFERENCE`; `pyiqa` computes them and downloads their weights.
        required: metrics whose absence is an error.

    Raises:
        UserError: a required metric cannot be computed, or `pyiqa` is not installed.
    """

    def __init__(
        self,
        protocol: Protocol,
        device: torch.device | None = None,
        perceptual: bool = False,
        lpips_weights: Path | None = None,
        no_reference: Sequence[str] = (),
        required: Iterable[str] = (),
    ):
        self.protocol = protocol
        self.device = device or torch.device("cpu")
        self.skipped: dict[str, str] = {}
        self.lpips: LPIPS | None = None
        if perceptual:
            try:
                self.lpips = LPIPS(protocol.lpips.backbone, lpips_weights, protocol.lpips.centered).to(self.device)
            except UserError as error:
                if "lpips" in required or lpips_weights:
                    raise
                self.skipped["lpips"] = str(error)
        self.no_reference = {name: _pyiqa(name, self.device) for name in no_reference}

    @cached_property
    def provenance(self) -> dict[str, dict[str, str]]:
        """Learned metric -> package, version and hash of the weights."""
        learned = {name: describe_metric(metric, "pyiqa") for name, metric in self.no_reference.items()}
        if self.lpips:
            facts = {"version": "0.1", "backbone": self.protocol.lpips.backbone}
            learned["lpips"] = describe_metric(self.lpips, "lpips", **facts)
        return learned

    @property
    def names(self) -> list[str]:
        """Names of the metrics for an image with a target."""
        return ["psnr", "ssim", "mae", *(["lpips"] if self.lpips else []), *self.no_reference]

    def __call__(self, output: Tensor, target: Tensor | None) -> dict[str, float]:
        """Computes the metrics of an image; without a target, only those that need none.

        Args:
            output: (3, H, W), output of the network, not clamped.
            target: (3, H, W) in [0, 1], at the protocol's size.

        Raises:
            UserError: an image is too small for a metric.
        """
        scores: dict[str, float] = {}
        protocol, settings = self.protocol, self.protocol.lpips
        if target is not None:
            try:
                scores = protocol.score(output, target)
                if self.lpips:
                    seen = protocol.finish(output, settings.clamped, settings.rounded)
                    pair = (protocol.inside(image)[None].to(self.device) for image in (seen, target))
                    scores["lpips"] = self.lpips(*pair).item()
            except ValueError as error:
                raise UserError(str(error)) from None
        with torch.inference_mode():
            for name, metric in self.no_reference.items():
                scores[name] = metric(protocol.finish(output)[None].clamp(0, 1).to(self.device)).item()
        return scores


def _pyiqa(name: str, device: torch.device) -> torch.nn.Module:
    try:
        import pyiqa
    except ModuleNotFoundError as error:
        raise UserError(f"{name} needs the package '{error.name}': pip install 'kpac[no-reference]'") from None
    try:
        return pyiqa.create_metric(name, device=device)
    except OSError as error:
        raise UserError(
            f"{name}: pyiqa could not load its weights ({error}), which it downloads on first use"
        ) from None
