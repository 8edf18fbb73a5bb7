"""Folders on disk -> a list of scenes, for the forms in which the field's data sets are found.

A layout is found by looking for its folders, in the order of `LAYOUTS`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from kpac.data.images import list_images
from kpac.data.pairing import groups_of, pair, same_names
from kpac.errors import UserError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SceneFiles:
    """Where one scene lies.

    Args:
        name: the stem of its center view; bytes that are no UTF-8 are spelled out, since logs and results are text.
        views: view name -> file, in the order that was asked for.
        target: the all-in-focus image; None in sets that have none.
        group: "indoor" or "outdoor" where the set says so, else None.
        quarter_turns: counter-clockwise turns by 90 degrees that the images need after reading, so that the scene
            stands upright and left and right views differ along rows.
    """

    name: str
    views: Mapping[str, Path]
    target: Path | None
    group: str | None = None
    quarter_turns: int = 0

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
        pattern: which files of the center folder belong to the set.
        quarter_turns: see `SceneFiles`.
    """

    name: str
    folders: Mapping[str, str]
    bases: tuple[str, ...]
    pattern: str = "*"
    quarter_turns: int = 0

    @property
    def has_targets(self) -> bool:
        return "target" in self.folders

    def folder(self, root: Path, base: str, split: str, role: str) -> Path:
        """The folder of a view or of the targets."""
        return root / base.format(split=split) / self.folders[role].format(split=split)

    def images(self, root: Path, base: str, split: str, role: str) -> list[Path]:
        """The images of a view or the targets, sorted by name."""
        images = list_images(self.folder(root, base, split, role))
        return [path for path in images if role != "center" or fnmatchcase(path.name, self.pattern)]

    def base_in(self, root: Path, split: str) -> str | None:
        """The base under which this layout is found for a split, if it is.

        The folder of the center views must be there; without targets to tell a data set by, with images in it.
        """
        for base in self.bases:
            if not self._is_divided(base) and split != "test":
                continue
            center = self.folder(root, base, split, "center")
            if center.is_dir() and (self.has_targets or self.images(root, base, split, "center")):
                return base
        return None

    def _is_divided(self, base: str) -> bool:
        return "{split}" in base + self.folders["center"]


def _redistributed(name: str, suffix: str) -> Layout:
    folders = {"center": "inputC", "left": "inputL", "right": "inputR", "target": "target"}
    bases = ("{split}/DPDD", "{split}", "DPDD", "")
    return Layout(name, {role: folder + suffix for role, folder in folders.items()}, bases)


def _pixel(name: str, suffix: str) -> Layout:
    folders = {"center": "{split}_c", "left": "{split}_l", "right": "{split}_r"}
    bases = ("", "dd_dp_dataset_pixel", "PixelDP")
    # Turned as the public evaluation of IFAN turns them.
    return Layout(name, {role: folder + suffix for role, folder in folders.items()}, bases, quarter_turns=1)


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
        _pixel("pixeldp", "/source"),
        _pixel("pixeldp_flat", ""),
        Layout("cuhk", {"center": "image"}, ("", "CUHK"), pattern="out_of_focus*"),
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
        UserError: no known layout, or not clear which; an empty folder, two images of one name, or a scene that lacks a
            view or a target. The message names it.
    """
    root = Path(root)
    if split not in SPLITS:
        raise UserError(f"no split is called '{split}'; expected one of: {', '.join(SPLITS)}")
    found, base = find_layout(root, split, layout, targets)
    if layout == "auto":
        _check_certain(root, found, base, split)
    if targets and not found.has_targets:
        raise UserError(
            f"{root}: looks like a folder of images without targets (layout '{found.name}'); training and scoring need "
            f"targets. Expected for the {split} split: {_expected(split)}"
        )
    centers = _images(found, root, base, split, "center", "defocused images")
    paired: Sequence[Path | None] = [None] * len(centers)
    if found.has_targets:
        paired = pair(centers, _images(found, root, base, split, "target", "all-in-focus images"))
    by_view = {"center": {path.stem: path for path in centers}}
    for view in set(views) - {"center"}:
        if view not in found.folders:
            raise UserError(f"{root}: layout '{found.name}' has no {view} view; expected DPDD for dual-pixel networks")
        folder = found.folder(root, base, split, view)
        images = _images(found, root, base, split, view, f"{view} dual-pixel views")
        by_view[view] = {path.stem: path for path in images}
        for path in centers:
            if path.stem not in by_view[view]:
                raise UserError(f"{folder}: no {view} view named {path.name}, which {path.parent} has")
    groups = groups_of(found.folder(root, base, split, "center").parent, len(centers))
    return [
        SceneFiles(
            _text(path.stem), {view: by_view[view][path.stem] for view in views}, target, group, found.quarter_turns
        )
        for path, target, group in zip(centers, paired, groups, strict=True)
    ]


def find_layout(root: Path, split: str, layout: str = "auto", targets: bool = True) -> tuple[Layout, str]:
    """The layout of a folder and the base under which it was found.

    Where the inputs' folders fit a layout with targets and one without, as those of DPDD and PixelDP, the folder of the
    targets decides, unless the caller needs `targets`: then what is missing is the targets.

    Raises:
        UserError: no such folder, or nothing in it that is known.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected a data set. See data/README.md for the layouts")
    if layout != "auto" and layout not in LAYOUTS:
        raise UserError(f"no layout is called '{layout}'; expected auto or one of: {', '.join(LAYOUTS)}")
    for candidate in LAYOUTS.values() if layout == "auto" else [LAYOUTS[layout]]:
        base = candidate.base_in(root, split)
        if base is None:
            continue
        lacks = candidate.has_targets and not candidate.folder(root, base, split, "target").is_dir()
        if not (lacks and not targets and layout == "auto"):
            return candidate, base
    folders = sorted(child.name for child in root.iterdir() if child.is_dir() and child.name[0] != ".")
    there = ", ".join(folders) or "no folders at all"
    raise UserError(f"{root}: no {split} split found; expected {_expected(split)}; found in {root}: {there}")


def _check_certain(root: Path, found: Layout, base: str, split: str) -> None:
    """Refuses a set without targets whose inputs lie as those of a set with targets do, unless a folder's name tells.

    DPDD whose targets were not copied yet would be taken for PixelDP, and its images be turned.
    """
    if found.has_targets or base or root.resolve().name in found.bases:
        return
    center = found.folder(root, base, split, "center")
    for other in LAYOUTS.values():
        other_base = other.base_in(root, split) if other.has_targets else None
        if other_base is not None and other.folder(root, other_base, split, "center") == center:
            target = other.folder(root, other_base, split, "target")
            raise UserError(
                f"{target}: no such folder; expected all-in-focus images there, or --layout {found.name} if this is "
                f"{found.name}, which has none"
            )


def splits_in(root: Path, layout: str = "auto") -> list[str]:
    """The splits that a folder holds, with targets or without.

    Raises:
        UserError: none.
    """
    found = []
    for split in SPLITS:
        try:
            find_layout(root, split, layout, targets=False)
        except UserError:
            if split == SPLITS[-1] and not found:
                raise
        else:
            found.append(split)
    return found


def _text(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")


def _expected(split: str) -> str:
    return f"{split}_c/source and {split}_c/target (DPDD as published), or another layout of data/README.md"


def _images(layout: Layout, root: Path, base: str, split: str, role: str, what: str) -> list[Path]:
    folder = layout.folder(root, base, split, role)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected {what} there")
    images = layout.images(root, base, split, role)
    if not images:
        raise UserError(f"{folder}: holds no images; expected {what} as PNG, TIFF or JPEG")
    for first, second in same_names(images):
        raise UserError(f"{second}: has the name of {first}; expected one image a scene, remove or rename one of them")
    return images
