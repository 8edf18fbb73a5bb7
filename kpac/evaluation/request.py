"""What is asked of an evaluation, whatever the method."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Evaluation:
    """Data, protocol and metrics of an evaluation.

    Args:
        data: the data set's folder.
        split: "train", "val" or "test".
        layout: see `kpac.data.layouts`.
        protocol: see `kpac.evaluation.protocols.find_protocol`.
        lpips_weights, no_reference, required: see `kpac.evaluation.scorer.Scorer`.
        save_images: keeps all outputs as PNG files, at the bit depth of the inputs' files. Those of a set without
            targets are always kept.
    """

    data: Path
    split: str = "test"
    layout: str = "auto"
    protocol: str = "dpdd-8bit"
    lpips_weights: Path | None = None
    no_reference: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    save_images: bool = False
