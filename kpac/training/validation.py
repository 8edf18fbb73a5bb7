"""Scores of the validation split, shared by all processes, and the pictures of a few of its scenes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kpac.data.dataset import SceneDataset
from kpac.evaluation.evaluator import evaluate, mean_scores
from kpac.models.kpac import ScaleAttention
from kpac.training.distributed import Processes

PICTURE = 640  # longest side of a picture in the log, in pixels: a log of a hundred validations stays small


@dataclass
class Validated:
    """What a validation found.

    Args:
        scores: metric -> mean over all scenes, the same in every process.
        pictures: name -> (1 or 3, H, W) in [0, 1], of scenes that this process scored.
    """

    scores: dict[str, float]
    pictures: dict[str, Tensor] = field(default_factory=dict)


def validate(model: nn.Module, dataset: SceneDataset, here: Processes, samples: int) -> Validated:
    """Scores each scene once: the processes take turns, and the mean is over the scenes, not over the processes.

    Args:
        model: on the device of this process.
        dataset: the whole split, the same in every process.
        here: this process among all; every one of them must ask.
        samples: the first process's first scenes, whose input, output and target it shows side by side. Of the very
            first one it also shows what scale attention weighs, for networks that have it.
    """
    mine = range(here.rank, len(dataset), here.world_size)
    records: dict[int, dict[str, Any]] = {}
    pictures: dict[str, Tensor] = {}
    with scale_attention_maps(model) as maps:
        scored = evaluate(model, (dataset[index] for index in mine), here.device)
        for index, evaluated in zip(mine, scored, strict=True):
            records[index] = evaluated.record()
            if here.is_first and len(records) <= samples:
                name, panels = evaluated.scene.name, (evaluated.input, evaluated.output, evaluated.scene.target)
                pictures[f"val/{name}"] = torch.cat([small(panel) for panel in panels], dim=2)
            if here.is_first and index == 0 and samples:
                pictures.update({f"scale_attention/{name}": side_by_side(map_) for name, map_ in maps.items()})
    everything = {index: record for part in here.gather(records) for index, record in part.items()}
    return Validated(mean_scores([everything[index] for index in range(len(dataset))]), pictures)


@contextmanager
def scale_attention_maps(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The scale attention of the first image that the model sees inside: module name -> (branches, H, W)."""
    maps: dict[str, Tensor] = {}

    def keep(name: str, _: nn.Module, __: Any, output: Tensor) -> None:
        if name not in maps:
            maps[name] = output[0].float().cpu()

    handles = [
        module.register_forward_hook(partial(keep, name))
        for name, module in model.named_modules()
        if isinstance(module, ScaleAttention)
    ]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def side_by_side(weights: Tensor) -> Tensor:
    """Maps (branches, H, W) in [0, 1] as one gray picture (1, h, branches * w), the first dilation at the left."""
    return torch.cat([small(weight[None]) for weight in weights], dim=2)


def small(image: Tensor) -> Tensor:
    """An image (C, H, W), in [0, 1], no side longer than `PICTURE`."""
    image = image.clamp(0, 1)
    scale = PICTURE / max(image.shape[-2:])
    if scale >= 1:
        return image
    size = [max(1, round(side * scale)) for side in image.shape[-2:]]
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
