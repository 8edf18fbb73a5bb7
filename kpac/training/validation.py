"""Validation: scores of the validation split, computed by all ranks, and pictures of a few scenes."""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kpac.data.dataset import SceneDataset
from kpac.data.read_ahead import read_ahead
from kpac.distributed import Ranks
from kpac.evaluation.evaluator import evaluate
from kpac.evaluation.protocols import Protocol
from kpac.evaluation.scorer import Scorer
from kpac.evaluation.statistics import mean_scores
from kpac.models.health import HEALTH_CROP, BlockHealth, center_crop
from kpac.models.interface import ImageNetwork

PICTURE = 640  # longest side of a picture in the log, in pixels; keeps the log small over a hundred validations


@dataclass
class Validated:
    """Result of a validation.

    Args:
        scores: metric -> mean over all scenes, the same on every rank.
        pictures: name -> (1 or 3, H, W) in [0, 1], of scenes that this rank scored.
        blocks: on rank 0, the health of the network's blocks in its first scene; empty for networks without
            `block_health`.
    """

    scores: dict[str, float]
    pictures: dict[str, Tensor] = field(default_factory=dict)
    blocks: list[BlockHealth] = field(default_factory=list)


def validate(model: ImageNetwork, dataset: SceneDataset, protocol: Protocol, ranks: Ranks, samples: int) -> Validated:
    """Scores each scene once, the scenes divided among the ranks. Collective; means are over scenes, not over ranks.

    Args:
        model: network on the device of this rank. Two methods are optional, for views (1, 3V, H, W):
            `attention_maps(views)` returns maps to draw, name -> (maps, h, w) in [0, 1]; `block_health(views)` returns
            the health of its blocks.
        dataset: the whole split, the same on every rank, read at the protocol's bit depth.
        protocol: defines the metrics.
        ranks: this rank, and communication with the others.
        samples: number of rank 0's first scenes to draw: input, output and target side by side, and the attention maps
            of the first one.
    """
    mine = range(ranks.rank, len(dataset), ranks.world_size)
    records: dict[int, dict[str, Any]] = {}
    pictures: dict[str, Tensor] = {}
    blocks: list[BlockHealth] = []
    scored = evaluate(model, read_ahead(dataset, mine), ranks.device, Scorer(protocol))
    for index, evaluated in zip(mine, scored, strict=True):
        records[index] = evaluated.record()
        if index == 0 and hasattr(model, "block_health"):
            blocks = model.block_health(center_crop(evaluated.scene.views[None], HEALTH_CROP).to(ranks.device))
        if ranks.is_first and len(records) <= samples:
            name, panels = evaluated.scene.name, (evaluated.input, evaluated.output, evaluated.scene.target)
            pictures[f"val/{name}"] = torch.cat([small(panel) for panel in panels if panel is not None], dim=2)
            if len(records) == 1 and hasattr(model, "attention_maps"):
                maps = model.attention_maps(evaluated.scene.views[None].to(ranks.device))
                pictures.update({f"attention/{name}": side_by_side(map_.cpu()) for name, map_ in maps.items()})
    gathered = {index: record for part in ranks.all_gather(records) for index, record in part.items()}
    return Validated(mean_scores([gathered[index] for index in range(len(dataset))]), pictures, blocks)


def side_by_side(weights: Tensor) -> Tensor:
    """Maps (branches, H, W) in [0, 1], side by side as one gray picture (1, h, branches * w), first dilation left."""
    return torch.cat([small(weight[None]) for weight in weights], dim=2)


def small(image: Tensor) -> Tensor:
    """Reduces an image (C, H, W) in [0, 1], so that no side is longer than `PICTURE`."""
    image = image.clamp(0, 1)
    scale = PICTURE / max(image.shape[-2:])
    if scale >= 1:
        return image
    size = [max(1, round(side * scale)) for side in image.shape[-2:]]
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
