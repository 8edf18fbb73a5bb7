"""Record of the results in a folder: the photograph, the weights and the settings that each was made from."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kpac.errors import UserError
from kpac.files import append_json_line, read_json_lines, sha256_of
from kpac.models.weights import weights_file
from kpac.restore.restorer import Restorer

FILE = ".kpac-restored.jsonl"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Everything that a result depends on, apart from its photograph."""

    weights: str  # SHA-256 of the weights file
    precision: str  # number format of the network's layers, such as "float32"
    tiles: int | str | None = None  # side of the tiles if they change the result; None for exact tiles and whole images
    quality: int = 95  # quality of JPEG, WebP and HEIC, 1 to 100

    @classmethod
    def of(cls, weights: str | Path, restorer: Restorer, quality: int) -> "Recipe":
        """The recipe of a restorer that has loaded `weights`."""
        tiles = restorer.tile if restorer.approximate else None
        return cls(sha256_of(weights_file(weights)), str(restorer.dtype).removeprefix("torch."), tiles, quality)

    def entries(self) -> dict[str, Any]:
        """The recipe as entries of a record."""
        settings = {"precision": self.precision, "approximate tiles": self.tiles, "quality": self.quality}
        return {"weights": self.weights, **settings}


class Record:
    """Record of a folder of results, as JSON Lines in the hidden file `FILE`; a later line replaces an earlier one.

    Args:
        folder: the folder of the results.
    """

    def __init__(self, folder: Path):
        self.path = folder / FILE
        self._found: dict[str, dict[str, Any]] | None = None

    def add(self, views: Mapping[str, Path], target: Path, recipe: Recipe) -> None:
        """Records a new result; logs a warning if the record cannot be written."""
        entry = {"name": target.name, "result": sha256_of(target), "made_from": _made_from(views, recipe)}
        try:
            append_json_line(self.path, entry)
        except UserError as error:
            log.warning("%s; a repeated command will not recognize these results", error)

    def difference(self, views: Mapping[str, Path], target: Path, recipe: Recipe) -> str:
        """Describes how an existing result differs from the one that would be made now; "" if it does not."""
        if self._found is None:
            self._found = {entry["name"]: entry for entry in read_json_lines(self.path) if "made_from" in entry}
        entry = self._found.get(target.name)
        if entry is None:
            return "no record of how it was made"
        if entry["result"] != sha256_of(target):
            return "changed since it was restored"
        before, now = entry["made_from"], _made_from(views, recipe)
        if before.get("views") != now["views"]:
            return "made from another photograph"
        if before.get("weights") != now["weights"]:
            return "made with other weights"
        changed = [key for key in now if before.get(key) != now[key]]
        return ", ".join(f"made with {key} {before.get(key)}, now {now[key]}" for key in changed)


def _made_from(views: Mapping[str, Path], recipe: Recipe) -> dict[str, Any]:
    return {"views": {view: sha256_of(path) for view, path in views.items()}, **recipe.entries()}
