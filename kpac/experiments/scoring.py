"""Section for the metrics of an evaluation, shared by the YAML files of comparisons and sweeps."""

from pathlib import Path
from typing import Any, Literal

from kpac.config import Section
from kpac.evaluation.scorer import NO_REFERENCE

Metric = Literal["psnr", "ssim", "mae", "lpips", "niqe", "musiq"]


class ScoringSection(Section):
    metrics: list[Metric] = ["psnr", "ssim", "mae"]
    """Metrics besides PSNR, SSIM and MAE, which are always computed. With lpips, a missing backbone is an error instead
    of a notice; niqe and musiq need the package pyiqa but no targets."""
    lpips_weights: Path | None = None
    """File with torchvision's weights of the LPIPS backbone; null for torchvision's cache."""
    save_images: bool = False
    """Keeps all outputs as images."""

    def metric_options(self) -> dict[str, Any]:
        """The section as arguments of `kpac.evaluation.request.Evaluation`."""
        return {
            "lpips_weights": self.lpips_weights,
            "no_reference": tuple(name for name in self.metrics if name in NO_REFERENCE),
            "required": ("lpips",) if "lpips" in self.metrics else (),
        }

    def metric_flags(self) -> list[str]:
        """The section as arguments of `kpac evaluate`."""
        options = self.metric_options()
        flags = ["--require", *options["required"]] if options["required"] else []
        flags += ["--no-reference", *options["no_reference"]] if options["no_reference"] else []
        flags += ["--lpips-weights", str(self.lpips_weights)] if self.lpips_weights else []
        return flags + (["--save-images"] if self.save_images else [])
