"""Computes missing outputs and scale attention with the networks that were evaluated."""

import threading
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from kpac.data.dataset import Scene, SceneDataset
from kpac.data.layouts import SceneFiles
from kpac.environment import choose_device
from kpac.errors import UserError
from kpac.evaluation.evaluator import to_array
from kpac.evaluation.methods import Network
from kpac.evaluation.protocols import Protocol
from kpac.inspect.attention import BlockAttention, attention_of, kpac_blocks
from kpac.reporting.pages.gallery import DataSet, MethodResults

_one_at_a_time = threading.Lock()  # a pass takes all cores and much memory; recording attention adds hooks


class MethodNetwork:
    """The network of one method, loaded on first use.

    Args:
        method: one evaluation of the method.
        protocol: protocol of that evaluation.
        device: see `kpac.environment.choose_device`.
    """

    def __init__(self, method: MethodResults, protocol: Protocol, device: str):
        self.method, self.protocol, self.device = method, protocol, choose_device(device)
        self._scenes: dict[Path, dict[str, SceneFiles]] = {}

    @property
    def exists(self) -> bool:
        """Whether the results are of a network; False for results of saved images."""
        return "weights" in self.method.results["model"]

    @cached_property
    def network(self) -> Network:
        """The network.

        Raises:
            UserError: the weights file is missing, or has changed since the evaluation.
        """
        model, file = self.method.results["model"], self.method.file
        weights = Path(model["weights"])
        if not weights.is_file():
            raise UserError(f"{file}: the weights {weights} are missing; put them back to compute with them")
        network = Network(weights, self.device)
        if network.sha256 != model["sha256"]:
            raise UserError(
                f"{file}: {weights} has changed since the evaluation (expected SHA-256 {model['sha256'][:16]}, found "
                f"{network.sha256[:16]})",
                "save_images",
            )
        return network

    @cached_property
    def attending(self) -> list[int]:
        """Numbers of the blocks with scale attention, from 1; empty for a network without KPAC blocks."""
        blocks = kpac_blocks(self.network.model) if self.exists else []
        return [number for number, block in enumerate(blocks, 1) if block.scale_attention is not None]

    def restore(self, data_set: DataSet, name: str) -> np.ndarray:
        """The network's output for a scene, clamped and rounded by the protocol; H x W x 3 in [0, 1]."""
        with _one_at_a_time:
            scene = self._scene(data_set, name)
            return to_array(self.protocol.finish(self.network.restore(scene).output).cpu())

    def attention(self, data_set: DataSet, name: str) -> list[tuple[int, BlockAttention]]:
        """For each block with scale attention: its number, from 1, and its attention in a scene."""
        with _one_at_a_time:
            views = self._scene(data_set, name).views
            arrays = [to_array(views[start : start + 3]) for start in range(0, len(views), 3)]
            given = dict(zip(self.network.views, arrays, strict=True))
            _, blocks = attention_of(self.network.model, given["center"], given.get("left"), given.get("right"))
        return [(number, block) for number, block in enumerate(blocks, 1) if block.scale is not None]

    def _scene(self, data_set: DataSet, name: str) -> Scene:
        """The views that the network reads, at the protocol's size."""
        scene = SceneDataset([self._files(data_set)[name]], self.protocol.bit_depth)[0]
        return replace(scene, views=self.protocol.prepare(scene.views), target=None)

    def _files(self, data_set: DataSet) -> dict[str, SceneFiles]:
        if data_set.data not in self._scenes:
            found = data_set.find_scenes(self.network.views)
            self._scenes[data_set.data] = {scene.name: scene for scene in found}
        return self._scenes[data_set.data]
