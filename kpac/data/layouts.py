"""Folders on disk -> a list of scenes, for the forms in which the field's data sets are found.

A layout is found by looking for its folders. Scenes pair up with their targets by DPDD's published list where the
names are the list's, else by name, else, when no name is shared, by sorted position.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from kpac.data.images import list_images
from kpac.errors import UserError

SPLITS = ("train", "val", "test")
GROUPS = ("indoor", "outdoor")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SceneFiles:
    """Where one scene lies.

    Args:
        name: the stem of its center view.
        views: view name -> file, in the order that was asked for.
        target: the all-in-focus image; None in sets that have none.
        group: "indoor" or "outdoor" where the set says so, else None.
    """

    name: str
    views: Mapping[str, Path]
    target: Path | None
    group: str | None = None

    @property
    def paths(self) -> list[Path]:
        """All files of the scene, the target last."""
        return [*self.views.values(), *([self.target] if self.target else [])]


@dataclass(frozen=True)
class Layout:
    """One form of a data set.

    Args:
        name: what a configuration calls it.
        folders: view name, or "target", -> folder, relative to one of `bases`.
        bases: where the folders can lie, relative to the root; "{split}" stands for the split. A base without it holds
            one undivided set, which counts as the test split.
    """

    name: str
    folders: Mapping[str, str]
    bases: tuple[str, ...]

    @property
    def has_targets(self) -> bool:
        return "target" in self.folders

    def folder(self, root: Path, base: str, split: str, role: str) -> Path:
        """The folder of a view or of the targets."""
        return root / base.format(split=split) / self.folders[role].format(split=split)

    def base_in(self, root: Path, split: str) -> str | None:
        """The base under which this layout is found for a split, if it is."""
        for base in self.bases:
            if (self._is_divided(base) or split == "test") and self.folder(root, base, split, "center").is_dir():
                return base
        return None

    def _is_divided(self, base: str) -> bool:
        return "{split}" in base + self.folders["center"]


def _redistributed(name: str, suffix: str) -> Layout:
    folders = {"center": "inputC", "left": "inputL", "right": "inputR", "target": "target"}
    bases = ("{split}/DPDD", "{split}", "DPDD", "")
    return Layout(name, {role: folder + suffix for role, folder in folders.items()}, bases)


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "dpdd",
            {
                "center": "{split}_c/source",
                "left": "{split}_l/source",
                "right": "{split}_r/source",
                "target": "{split}_c/target",
            },
            ("", "dd_dp_dataset_canon", "dd_dp_dataset_png", "DPDD"),
        ),
        _redistributed("dpdd_redistributed", ""),
        _redistributed("dpdd_redistributed_crops", "_crops"),
        Layout("realdof", {"center": "source", "target": "target"}, ("", "RealDOF")),
        Layout("paired", {"center": "input", "target": "target"}, ("{split}", "")),
        Layout("images", {"center": ""}, ("",)),
    )
}


def find_scenes(
    root: str | Path,
    split: str,
    views: Sequence[str] = ("center",),
    layout: str = "auto",
    targets: bool = True,
) -> list[SceneFiles]:
    """Lists the scenes of one split, sorted by name, without opening an image.

    Args:
        root: the data set's folder.
        split: "train", "val" or "test"; an undivided set is a test split.
        views: the views that every scene must have: "center", "left", "right".
        layout: a name in `LAYOUTS`, or "auto" to look.
        targets: whether every scene must have a target.

    Raises:
        UserError: no known layout, an empty folder, or a scene that lacks a view or a target; the message names it.
    """
    root = Path(root)
    if split not in SPLITS:
        raise UserError(f"no split is called '{split}'; expected one of: {', '.join(SPLITS)}")
    found, base = find_layout(root, split, layout)
    if targets and not found.has_targets:
        raise UserError(
            f"{root}: looks like a folder of images without targets (layout '{found.name}'); training and scoring need "
            f"targets. Expected for the {split} split: {_expected(root, split)}"
        )
    centers = _images(found.folder(root, base, split, "center"), "defocused images")
    paired: Sequence[Path | None] = [None] * len(centers)
    if found.has_targets:
        paired = _pair(centers, _images(found.folder(root, base, split, "target"), "all-in-focus images"))
    by_view = {"center": {path.stem: path for path in centers}}
    for view in set(views) - {"center"}:
        if view not in found.folders:
            raise UserError(f"{root}: layout '{found.name}' has no {view} view; expected DPDD for dual-pixel networks")
        folder = found.folder(root, base, split, view)
        by_view[view] = {path.stem: path for path in _images(folder, f"{view} dual-pixel views")}
        for path in centers:
            if path.stem not in by_view[view]:
                raise UserError(f"{folder}: no {view} view named {path.name}, which {path.parent} has")
    groups = _groups(found.folder(root, base, split, "center").parent, len(centers))
    return [
        SceneFiles(path.stem, {view: by_view[view][path.stem] for view in views}, target, group)
        for path, target, group in zip(centers, paired, groups, strict=True)
    ]


def find_layout(root: Path, split: str, layout: str = "auto") -> tuple[Layout, str]:
    """The layout of a folder and the base under which it was found.

    Raises:
        UserError: no such folder, or nothing in it that is known.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected a data set. See data/README.md for the layouts")
    if layout != "auto" and layout not in LAYOUTS:
        raise UserError(f"no layout is called '{layout}'; expected auto or one of: {', '.join(LAYOUTS)}")
    for candidate in LAYOUTS.values() if layout == "auto" else [LAYOUTS[layout]]:
        base = candidate.base_in(root, split)
        if base is not None and (candidate.has_targets or layout != "auto" or list_images(root)):
            return candidate, base
    there = ", ".join(sorted(child.name for child in root.iterdir() if child.is_dir())) or "no folders at all"
    raise UserError(f"{root}: no {split} split found; expected {_expected(root, split)}; found in {root}: {there}")


@cache
def published_pairs() -> Mapping[str, Mapping[str, str]]:
    """DPDD's published lists: split -> source name -> target name (Abuolaim and Brown, ECCV 2020)."""
    lists = json.loads((files("kpac.data") / "dpdd.json").read_text(encoding="utf-8"))["splits"]
    return {split: dict(pairs) for split, pairs in lists.items()}


def _expected(root: Path, split: str) -> str:
    return f"{split}_c/source and {split}_c/target (DPDD as published), or another layout of data/README.md"


def _images(folder: Path, what: str) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected {what} there")
    images = list_images(folder)
    if not images:
        raise UserError(f"{folder}: holds no images; expected {what} as PNG, TIFF or JPEG")
    return images


def _pair(sources: list[Path], targets: list[Path]) -> list[Path]:
    """The target of each source; see the module's docstring."""
    by_name = {path.stem: path for path in targets}
    folder, source_folder = targets[0].parent, sources[0].parent
    listed = {source: target for pairs in published_pairs().values() for source, target in pairs.items()}
    if all(path.stem in listed for path in sources) and any(listed[path.stem] in by_name for path in sources):
        names = {path: listed[path.stem] for path in sources}
    elif any(path.stem in by_name for path in sources):
        names = {path: path.stem for path in sources}
    elif len(sources) == len(targets):
        log.warning("%s and %s share no names: pairing them in sorted order", source_folder, folder)
        return targets
    else:
        raise UserError(
            f"{folder}: holds {len(targets)} images, {source_folder} {len(sources)}; "
            "expected as many, since no names are shared and they pair by sorted position"
        )
    for path, name in names.items():
        if name not in by_name:
            raise UserError(f"{folder}: no target named {name}{path.suffix}, which belongs to {path}")
    return [by_name[name] for name in names.values()]


def _groups(folder: Path, count: int) -> list[str | None]:
    """Indoor or outdoor, from the label files of the redistributed DPDD: 1-based positions in the sorted list."""
    groups: list[str | None] = [None] * count
    for group in GROUPS:
        path = folder / f"{group}_labels.npy"
        if not path.is_file():
            continue
        try:
            positions = np.load(path, allow_pickle=False).ravel().astype(int)
        except (ValueError, OSError):
            raise UserError(f"{path}: not a NumPy array of numbers; expected positions in the sorted list") from None
        for position in positions:
            if not 1 <= position <= count or groups[position - 1] is not None:
                raise UserError(
                    f"{path}: position {position} does not fit a list of {count} scenes, each in one group; "
                    "is this the label file of another split?"
                )
            groups[position - 1] = group
    return groups
