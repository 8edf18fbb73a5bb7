"""Which metrics an evaluation computes, as comparisons and sweeps say it in YAML."""

from pathlib import Path
from typing import Any, Literal

from kpac.config import Section
from kpac.evaluation.scorer import NO_REFERENCE

Metric = Literal["psnr", "ssim", "mae", "lpips", "niqe", "musiq"]


class ScoringSection(Section):
    metrics: list[Metric] = ["psnr", "ssim", "mae"]
    """PSNR, SSIM and MAE are always there. lpips makes a missing backbone an error instead of a notice; niqe and musiq
    need no targets, and the package pyiqa."""
    lpips_weights: Path | None = None
    """torchvision's weights of the LPIPS backbone; null for its own copy."""
    save_images: bool = False
    """Keeps all outputs as images."""

    def metric_options(self) -> dict[str, Any]:
        """The arguments of `kpac.evaluation.request.Evaluation` that say the metrics."""
        return {
            "lpips_weights": self.lpips_weights,
            "no_reference": tuple(name for name in self.metrics if name in NO_REFERENCE),
            "required": ("lpips",) if "lpips" in self.metrics else (),
        }

    def metric_flags(self) -> list[str]:
        """The same as arguments of `kpac evaluate`."""
        options = self.metric_options()
        flags = ["--require", *options["required"]] if options["required"] else []
        flags += ["--no-reference", *options["no_reference"]] if options["no_reference"] else []
        flags += ["--lpips-weights", str(self.lpips_weights)] if self.lpips_weights else []
        return flags + (["--save-images"] if self.save_images else [])
