"""Methods to evaluate: a network, or a folder of images that another program made."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kpac.cpu import accelerate, plain_class
from kpac.data.dataset import Scene
from kpac.data.layouts import SceneFiles, say_how
from kpac.data.pairing import name_of, pair
from kpac.errors import UserError
from kpac.evaluation.evaluator import Restored, restore
from kpac.files import sha256_of
from kpac.images import list_images, read_pixels, to_float
from kpac.models.cost import Cost, count_cost
from kpac.models.network import KPACNet
from kpac.models.weights import load_model, weights_file


class Method(ABC):
    """Base class of methods, which give an output for each scene."""

    label: str
    """Name in tables."""
    views: tuple[str, ...]
    """Views that the method reads."""
    home: Path | None = None
    """Default parent folder of results; None for the working directory."""

    @abstractmethod
    def check(self, scenes: Sequence[SceneFiles]) -> None:
        """Refuses scenes without an output, before any scene is scored."""

    @abstractmethod
    def restore(self, scene: Scene) -> Restored:
        """Gives the output for a scene at the protocol's size."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Entry of the method in results.json."""

    @abstractmethod
    def identity(self, scene: SceneFiles) -> list[Any]:
        """Everything that the output depends on besides the scene, as JSON; changes whenever the output may change."""

    def cost(self, height: int, width: int) -> Cost | None:
        """Parameters, and multiply-accumulates for an image of this size; None if not known."""
        return None


class Network(Method):
    """A network, loaded from its weights.

    Args:
        weights: a .safetensors file, the folder of a run, or a checkpoint that `kpac.zoo` can load.
        device: device to compute on.
        label: name in tables. By default the file's name; for weights of a run the run's name, followed by the file's
            name unless they are its best weights.
        tile: side of tiles in pixels, for large images; None restores in one pass.

    Raises:
        UserError: no such weights, or tiles for a network that cannot be tiled exactly.
    """

    def __init__(self, weights: Path, device: torch.device, label: str | None = None, tile: int | None = None):
        self.file = weights_file(weights)
        model = load_model(self.file).to(device)
        self.model = accelerate(model) if device.type == "cpu" else model
        self.device, self.tile = device, tile
        if tile is not None and plain_class(self.model) is not KPACNet:
            raise UserError(f"{self.file}: network '{model.config['name']}' cannot be tiled exactly", "whole")
        self.views = self.model.views
        run = _run_of(self.file)
        is_best = run is not None and self.file.stem == "best"
        self.home = weights if weights.is_dir() else run if is_best else None
        name = weights.stem if run is None else run.name if is_best else f"{run.name}-{weights.stem}"
        self.label = label or (weights.resolve().name if weights.is_dir() else name)

    def check(self, scenes: Sequence[SceneFiles]) -> None:
        pass

    def restore(self, scene: Scene) -> Restored:
        try:
            restored = restore(self.model, scene.views, self.device, self.tile)
        except UserError as error:
            raise error.within(f"scene '{scene.name}'") from None
        bad = int((~restored.output.isfinite()).sum())
        if bad:
            raise UserError(
                f"scene '{scene.name}': {bad:,} values of the output of {self.file} are NaN or infinite; "
                "its training diverged, or the file is damaged"
            )
        return restored

    def describe(self) -> dict[str, Any]:
        model = dict(self.model.config)
        return {"name": model.pop("name"), "options": model, "weights": str(self.file.resolve()), "sha256": self.sha256}

    def identity(self, scene: SceneFiles) -> list[Any]:
        return [self.sha256]

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the weights file."""
        return sha256_of(self.file)

    def cost(self, height: int, width: int) -> Cost | None:
        """Cost for an image of this size; None for a network that cannot run on meta tensors."""
        try:
            return count_cost(self.model, height, width)
        except (RuntimeError, NotImplementedError):
            return None


class SavedImages(Method):
    """A folder of saved outputs: one image per scene, with the name of the scene or of its target.

    PNG, TIFF and JPEG files are read at their own bit depth; .npy files hold floats in [0, 1], H x W x 3.

    Args:
        folder: holds the images.
        device: device to score on.
        label: name in tables; by default the folder's name.
    """

    views = ("center",)

    def __init__(self, folder: Path, device: torch.device, label: str | None = None):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; expected the output images of a method")
        self.folder, self.device = folder, device
        self.label = label or folder.resolve().name
        self.by_stem: dict[str, Path] = {}
        for path in [*list_images(folder), *sorted(folder.glob("*.npy"))]:
            name = name_of(path)
            if name in self.by_stem:
                raise UserError(f"{path}: {self.by_stem[name].name} has the same name; expected one image per scene")
            self.by_stem[name] = path

    def check(self, scenes: Sequence[SceneFiles]) -> None:
        missing = [scene for scene in scenes if self._path(scene) is None]
        if missing and (paired := self._by_words(scenes)):
            self.paths = paired
            return
        if missing:
            scene = missing[0]
            names = f"{scene.name}.png"
            if scene.target and scene.target.stem != scene.name:
                names += f" or {scene.target.stem}.png"
            raise UserError(
                f"{self.folder}: no image {names}; {len(missing)} of {len(scenes)} scenes have no output there"
            )
        self.paths = {scene.name: path for scene in scenes if (path := self._path(scene))}

    def restore(self, scene: Scene) -> Restored:
        path = self.paths[scene.name]
        image = read_output(path)
        bad = int((~np.isfinite(image)).sum())
        if bad:
            raise UserError(f"{path}: {bad:,} values are NaN or infinite; expected numbers in [0, 1]")
        output = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(self.device)
        return Restored(output, file=path)

    def describe(self) -> dict[str, Any]:
        return {"name": self.label, "options": {}, "images": str(self.folder.resolve())}

    def identity(self, scene: SceneFiles) -> list[Any]:
        path = self.paths[scene.name]
        return [path.name, path.stat().st_size, path.stat().st_mtime_ns]

    def _by_words(self, scenes: Sequence[SceneFiles]) -> dict[str, Path] | None:
        """Pairs scenes and outputs by parts of their names, such as `12` and `12_restored`; None if one has no pair."""
        try:
            pairs = pair([scene.views["center"] for scene in scenes], list(self.by_stem.values()))
        except UserError:
            return None
        if not all(pairs.partners):
            return None
        say_how(pairs, self.folder)
        return {scene.name: path for scene, path in zip(scenes, pairs.partners, strict=True) if path}

    def _path(self, scene: SceneFiles) -> Path | None:
        names = [scene.name, *([name_of(scene.target)] if scene.target else [])]
        return next((self.by_stem[name] for name in names if name in self.by_stem), None)


def read_output(path: Path) -> np.ndarray:
    """Reads a saved output, an image or a .npy file, as floats, H x W x 3.

    Raises:
        UserError: the file is neither.
    """
    return read_array(path) if path.suffix == ".npy" else to_float(read_pixels(path))


def read_array(path: Path) -> np.ndarray:
    """Reads an image from a .npy file: floats, H x W x 3.

    Raises:
        UserError: the file holds something else.
    """
    try:
        image = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError):
        raise UserError(f"{path}: not a NumPy array; expected floats in [0, 1], H x W x 3") from None
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype.kind != "f":
        raise UserError(f"{path}: holds {image.dtype} of shape {image.shape}; expected floats in [0, 1], H x W x 3")
    return image.astype(np.float32)


def run_folder(weights: Path) -> Path | None:
    """The run's folder, from the folder itself or from a weights file in it; None if there is no run."""
    return weights if (weights / "config.yaml").is_file() else _run_of(weights)


def _run_of(weights: Path) -> Path | None:
    folder = weights.resolve().parent
    is_run = folder.name == "checkpoints" and (folder.parent / "config.yaml").is_file()
    return folder.parent if is_run else None
