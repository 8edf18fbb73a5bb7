"""Finds weights files by name: files in this folder, or downloads listed in the manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from kpac.config import nearest
from kpac.downloads import download
from kpac.errors import UserError
from kpac.files import sha256_of

FOLDER = Path(__file__).parent
MANIFEST = FOLDER / "manifest.yaml"
DEFAULTS: dict[tuple[str, ...], str] = {
    ("center",): "kpac_2level-synthetic",
    ("center", "left", "right"): "kpac_dual-synthetic",
}


@dataclass(frozen=True)
class Weights:
    """One entry of the manifest."""

    name: str  # name for `kpac.load_model`
    summary: str  # one line for a list
    sha256: str  # SHA-256 of the file, in hexadecimal
    url: str | None = None  # where the file can be downloaded; None for a file that comes with the package

    @property
    def path(self) -> Path:
        """Where the file is, or will be once it is downloaded."""
        folder = Path(torch.hub.get_dir()) / "checkpoints" / "kpac" if self.url else FOLDER
        return folder / f"{self.name}.safetensors"

    @property
    def card(self) -> Path:
        """A Markdown file: data, recipe, command, results, limits, licence."""
        return FOLDER / f"{self.name}.md"


def known_weights(manifest: Path = MANIFEST) -> dict[str, Weights]:
    """The entries of a manifest by name, in its order."""
    entries = yaml.safe_load(manifest.read_text(encoding="utf-8")) or {}
    return {name: Weights(name, **entry) for name, entry in entries.items()}


def find_weights(name: str, manifest: Path = MANIFEST) -> Path:
    """Returns the weights file of a name. Checks its hash; downloads it on first use, with a progress bar.

    Args:
        name: an entry of the manifest.
        manifest: see `known_weights`.

    Raises:
        UserError: no such name, the download failed, or the file is not the one that the manifest names.
    """
    known = known_weights(manifest)
    if name not in known:
        raise UserError(f"{name}: no such file or folder, and no weights of this name{nearest(name, known)}")
    weights = known[name]
    if weights.url and not weights.path.is_file():
        download(weights.url, weights.path, weights.sha256)
    found = sha256_of(weights.path) if weights.path.is_file() else "nothing"
    if found != weights.sha256:
        again = "delete it to download it again" if weights.url else "install the package again"
        raise UserError(
            f"{weights.path}: not the weights called '{name}': expected SHA-256 {weights.sha256[:12]}, "
            f"found {found[:12]}; {again}"
        )
    return weights.path


def default_weights(views: Sequence[str] = ("center",), manifest: Path = MANIFEST) -> str:
    """The name of the default weights for a network that reads these views.

    Raises:
        UserError: there are none for these views.
    """
    name = DEFAULTS.get(tuple(views))
    if name not in known_weights(manifest):
        raise UserError(f"no weights come with the package for a network that reads {', '.join(views)}; name a model")
    return name
