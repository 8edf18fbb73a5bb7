"""Settings of an evaluation, apart from the method: data, protocol and metrics."""

from dataclasses import dataclass, replace
from pathlib import Path

from kpac.config import load_config
from kpac.errors import UserError


@dataclass(frozen=True)
class Evaluation:
    """Data, protocol and metrics of an evaluation."""

    data: Path  # the data set's folder
    split: str = "test"  # "train", "val" or "test"
    layout: str = "auto"  # this and the next: see `kpac.data.layouts.find_scenes`
    pair_by_order: bool = False
    protocol: str = "dpdd-8bit"  # see `kpac.evaluation.protocols.find_protocol`
    lpips_weights: Path | None = None  # this and the next two: see `kpac.evaluation.scorer.Scorer`
    no_reference: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    save_images: bool = False  # keeps all outputs as PNG, at the inputs' bit depth; always on without targets


def on_data_of_run(run: Path, asked: Evaluation, protocol: str | None) -> Evaluation:
    """Replaces data, layout and pairing of an evaluation by those that a run was trained on.

    Args:
        run: folder of the run.
        asked: the evaluation to change.
        protocol: name of the protocol; None for the one that the run was validated with.

    Raises:
        UserError: the run's configuration cannot be read, or its data set was moved.
    """
    config = load_config(run / "config.yaml")
    data = config.data
    if not data.root.is_dir():
        raise UserError(f"{data.root}: no such folder; the run {run} was trained on it", "data")
    named = protocol or config.validation.protocol
    return replace(asked, data=data.root, layout=data.layout, pair_by_order=data.pair_by_order, protocol=named)
