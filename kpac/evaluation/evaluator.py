"""Restores and scores scenes under a protocol; scores the blurred input as well."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kpac.cpu import freed_memory_kept
from kpac.data.dataset import Scene
from kpac.errors import OutOfMemory, UserError
from kpac.evaluation.protocols import Protocol, find_protocol
from kpac.evaluation.scorer import Scorer
from kpac.memory import is_exhausted, peak_bytes_held
from kpac.models.interface import ImageNetwork
from kpac.precision import full_float32
from kpac.restore.tiling import restore_in_tiles


@dataclass(frozen=True)
class Restored:
    """A method's output for one scene.

    Args:
        output: (3, H, W), of any range, on any device.
        file: file of a saved output, for messages.
        seconds: time of the network's pass, including the copy to the device; None if no network ran.
        memory_gb: peak GPU memory of the pass; on a CPU, peak memory of the process so far.
    """

    output: Tensor
    seconds: float | None = None
    memory_gb: float | None = None
    file: Path | None = None


@dataclass(frozen=True)
class Evaluated:
    """One evaluated scene.

    Args:
        scene: the scene at the protocol's size.
        output: the scored image, (3, H, W), on the CPU.
        scores: metric -> value, for the output.
        input_scores: metric -> value, for the blurred center view.
        seconds, memory_gb: see `Restored`.
    """

    scene: Scene
    output: Tensor
    scores: dict[str, float]
    input_scores: dict[str, float]
    seconds: float | None
    memory_gb: float | None = None

    @property
    def input(self) -> Tensor:
        """The blurred center view, (3, H, W) in [0, 1]."""
        return self.scene.views[:3]

    def record(self) -> dict[str, Any]:
        """The scene's entry in results.json."""
        optional = {"group": self.scene.group, "seconds": self.seconds, "memory_gb": self.memory_gb}
        facts = {name: value for name, value in optional.items() if value is not None}
        return {"name": self.scene.name, **self.scores, **facts, "input": self.input_scores}


def evaluate(
    model: ImageNetwork, scenes: Iterable[Scene], device: torch.device, scorer: Scorer | None = None
) -> Iterator[Evaluated]:
    """Restores and scores scenes one by one; afterwards the model is back in its earlier mode (train or eval).

    Args:
        model: a network on `device`.
        scenes: scenes read at the protocol's bit depth, as `kpac.data.dataset.SceneDataset` does.
        device: device of the model.
        scorer: by default PSNR, SSIM and MAE of the protocol dpdd-8bit.

    Raises:
        UserError: an image is too small for a metric.
    """
    scorer = scorer or Scorer(find_protocol("dpdd-8bit"))
    was_training = model.training
    model.eval()
    try:
        with freed_memory_kept():
            for scene in scenes:
                yield score_scene(scene, lambda sized: restore(model, sized.views, device), scorer)
    finally:
        model.train(was_training)


def restore(model: ImageNetwork, views: Tensor, device: torch.device, tile: int | None = None) -> Restored:
    """Restores one image with a network in evaluation mode, and measures time and memory.

    Args:
        model: a network on `device`.
        views: (3V, H, W) in [0, 1].
        device: device of the model.
        tile: side of the tiles in pixels, to bound the memory; the result is the same up to rounding.

    Raises:
        OutOfMemory: the message gives the size of the image, and `values` a tile to try.
    """
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    try:
        with torch.no_grad():
            if tile is None:
                output = model(views[None].to(device))[0].float()
            else:
                output = restore_in_tiles(model, views[None].split(3, dim=1), tile, device)[0].to(device)
    except (RuntimeError, MemoryError) as error:
        if not is_exhausted(error):
            raise
        height, width = views.shape[-2:]
        smaller = max(64, (tile or 1024) // 2)
        raise OutOfMemory(
            f"out of memory for {width}x{height} pixels {'whole' if tile is None else f'in tiles of {tile}'}",
            "tile_or_memory",
            tile=smaller,
        ) from None
    if on_gpu:
        torch.cuda.synchronize(device)
    if device.type == "mps":  # MPS has no float64, which metrics need
        output = output.cpu()
    seconds = time.perf_counter() - start
    return Restored(
        output, seconds, torch.cuda.max_memory_allocated(device) / 1e9 if on_gpu else peak_bytes_held() / 1e9
    )


def score_scene(scene: Scene, restore: Callable[[Scene], Restored], scorer: Scorer) -> Evaluated:
    """Brings a scene to the protocol's size, restores it, and scores input and output, all in full float32.

    An output of the scene's original size, such as another program's, is also brought to the protocol's size.

    Raises:
        UserError: the output's size differs from the target's, or is too small for a metric.
    """
    with full_float32():
        return _score_scene(scene, restore, scorer)


def _score_scene(scene: Scene, restore: Callable[[Scene], Restored], scorer: Scorer) -> Evaluated:
    protocol, whole = scorer.protocol, scene.views.shape[-2:]
    target = None if scene.target is None else protocol.prepare(scene.target)
    scene = replace(scene, views=protocol.prepare(scene.views), target=target)
    restored = restore(scene)
    output, expected = restored.output, scene.views.shape[-2:]
    if output.shape[-2:] == whole:
        output = protocol.prepare(output)
    if output.shape[-2:] != expected:
        raise UserError(_wrong_size(scene.name, restored, whole, expected, protocol))
    on_device = None if target is None else target.to(output.device)
    try:
        scores = scorer(output, on_device)
        input_scores = scorer(scene.views[:3].to(output.device), on_device)
    except UserError as error:
        raise UserError(f"scene '{scene.name}' {error}") from None
    output = protocol.finish(output).cpu()
    return Evaluated(scene, output, scores, input_scores, restored.seconds, restored.memory_gb)


def _wrong_size(
    name: str, restored: Restored, whole: Sequence[int], expected: Sequence[int], protocol: Protocol
) -> str:
    found, own = (f"{size[1]}x{size[0]}" for size in (restored.output.shape[-2:], whole))
    needed = f"{expected[1]}x{expected[0]}"
    if restored.file is None:
        return f"scene '{name}': the output is {found}, the input is {needed}; expected the same size"
    under = f", or of {needed}, its size under protocol '{protocol.name}'" if needed != own else ""
    return f"{restored.file}: is {found}, the target of scene '{name}' is {own}; expected outputs of that size{under}"


def to_array(image: Tensor) -> np.ndarray:
    """Converts a tensor (3, H, W) in [0, 1] to an array H x W x 3."""
    return image.permute(1, 2, 0).clamp(0, 1).numpy()
