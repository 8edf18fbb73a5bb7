"""Finds the output images of an evaluation."""

from functools import cached_property
from pathlib import Path
from typing import Any

from kpac.data.layouts import SceneFiles
from kpac.evaluation.folders import IMAGES
from kpac.images import list_images


class KeptOutputs:
    """The outputs of a method: images from the user, or images that the evaluation kept.

    Args:
        file: results.json.
        results: its content.
    """

    def __init__(self, file: Path, results: dict[str, Any]):
        given = results["model"].get("images")
        self.folder = Path(given) if given else file.parent / IMAGES

    @cached_property
    def by_stem(self) -> dict[str, Path]:
        """The files, by their names without suffix."""
        return {path.stem: path for path in [*sorted(self.folder.glob("*.npy")), *list_images(self.folder)]}

    def find(self, scene: SceneFiles | None, name: str) -> Path | None:
        """The file of a scene's output, which is named like the scene or like its target; None if there is none."""
        names = [name, *([scene.target.stem] if scene and scene.target else [])]
        return next((self.by_stem[stem] for stem in names if stem in self.by_stem), None)

    def has(self, scene: SceneFiles | None, name: str) -> bool:
        """Whether an output of a scene was kept."""
        return self.find(scene, name) is not None
