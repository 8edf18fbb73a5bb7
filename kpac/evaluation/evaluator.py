"""Model x data set x protocol -> scores of every image, of the restored output and of the blurred input beside it."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kpac.data.dataset import Scene
from kpac.errors import UserError
from kpac.evaluation.metrics import METRICS, WINDOW, score


@dataclass(frozen=True)
class Evaluated:
    """One evaluated scene.

    Args:
        scene: what was read.
        output: the restored image, (3, H, W) in [0, 1], on the CPU.
        scores: metric -> value, of the output.
        input_scores: metric -> value, of the blurred center view.
        seconds: time of the network's pass, copies to and from the device included.
    """

    scene: Scene
    output: Tensor
    scores: dict[str, float]
    input_scores: dict[str, float]
    seconds: float

    @property
    def input(self) -> Tensor:
        """The blurred center view, (3, H, W) in [0, 1]."""
        return self.scene.views[:3]

    def record(self) -> dict[str, Any]:
        """The scene's entry in results.json."""
        return {"name": self.scene.name, **self.scores, "seconds": self.seconds, "input": self.input_scores}


def evaluate(model: nn.Module, scenes: Iterable[Scene], device: torch.device) -> Iterator[Evaluated]:
    """Restores and scores scenes one after the other; the model's mode is put back afterwards.

    Args:
        model: on `device`.
        scenes: read at the protocol's bit depth, as `kpac.data.dataset.SceneDataset` does.
        device: where the model is.
    """
    was_training = model.training
    model.eval()
    try:
        for scene in scenes:
            if min(scene.target.shape[-2:]) < WINDOW:
                height, width = scene.target.shape[-2:]
                raise UserError(
                    f"scene '{scene.name}' is {width}x{height} pixels; SSIM needs {WINDOW}x{WINDOW} or more"
                )
            start = time.perf_counter()
            with torch.no_grad():
                output = model(scene.views[None].to(device))[0].clamp(0, 1).cpu()
            seconds = time.perf_counter() - start
            yield Evaluated(scene, output, score(output, scene.target), score(scene.views[:3], scene.target), seconds)
    finally:
        model.train(was_training)


def mean_scores(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The mean over images of every metric, of records or of their "input" entries."""
    return {name: sum(record[name] for record in records) / len(records) for name in METRICS}
