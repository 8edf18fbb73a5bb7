"""The forms in which the field's data sets lie on disk, and which of them a folder has.

A layout is found by looking for its folders, in the order of `LAYOUTS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from kpac.data.pairing import name_of
from kpac.data.roles import ROLES, images_by_role
from kpac.errors import UserError
from kpac.images import list_images

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Layout:
    """One form of a data set.

    Args:
        name: what a configuration calls it.
        folders: view name, or "target", -> folder, relative to one of `bases`; several names after each other, with
            spaces between, are alternatives, in any case. "" for the center folder alone: everything lies in the base.
        bases: where the folders can lie, relative to the root; "{split}" stands for the split. A base without it holds
            one undivided set, which counts as the test split.
        pattern: which files of the center folder belong to the set.
        quarter_turns: counter-clockwise turns by 90 degrees that make the published images upright. Images are turned
            only where the folder has one of the names in `bases`, or the layout was asked for by its name.
        one_folder: the base holds views and targets, told apart by their names; see `kpac.data.roles`.
    """

    name: str
    folders: Mapping[str, str]
    bases: tuple[str, ...]
    pattern: str = "*"
    quarter_turns: int = 0
    one_folder: bool = False

    @property
    def has_targets(self) -> bool:
        return "target" in self.folders

    def find(self, root: Path, split: str) -> "Found | None":
        """This layout in a folder, for a split, if it is there.

        The folder of the center views must be there; without targets to tell a data set by, with images in it.

        Raises:
            UserError: two folders that could both be the one of a role.
        """
        for base in self.bases:
            if "{split}" not in base + self.folders["center"] and split != "test":
                continue
            place = root / base.format(split=split)
            folders = {role: _folder(place, names.format(split=split)) for role, names in self.folders.items()}
            found = Found(self, root, base, split, folders)
            if not folders["center"].is_dir():
                continue
            if self.one_folder and len(found.images) < 2:
                continue
            if self.has_targets or any(found.images.values()):
                return found
        return None

    def expected(self, split: str) -> str:
        """The folders of a split, as an error names them."""
        roles = [role for role in ("center", "target") if self.folders.get(role)]
        if not roles:
            return f"images in {split}/ or in the folder itself" if "{split}" in self.bases else "images in it"
        prefix = "{split}/" if "{split}" in self.bases else ""
        names = [(prefix + self.folders[role].split()[0]).format(split=split) for role in roles]
        return " and ".join(names)


@dataclass(frozen=True)
class Found:
    """A layout as it was found.

    Args:
        layout: which.
        root: the data set's folder.
        base: where in it, one of the layout's bases.
        split: for which.
        folders: view name, or "target", -> folder, whether it is there or not.
    """

    layout: Layout
    root: Path
    base: str
    split: str
    folders: Mapping[str, Path]

    @cached_property
    def images(self) -> dict[str, list[Path]]:
        """View name, or "target", -> images, sorted by name; only center and target folders may be missing here."""
        images = {role: list_images(folder) for role, folder in self.folders.items()}
        center = [path for path in images["center"] if fnmatchcase(path.name, self.layout.pattern)]
        there = {role: found for role, found in images.items() if role == "target" or self.folders[role].is_dir()}
        there["center"] = center
        targets = {name_of(path) for path in there.get("target", [])}
        have_targets = any(name_of(path) in targets for path in center)  # of their own names: all are inputs
        if self.layout.one_folder or (self.layout.has_targets and not have_targets):
            by_role = images_by_role(center)
            if not by_role.keys() & (there.keys() - {"center"}):
                del there["center"]
                there |= by_role
        return {role: there[role] for role in ROLES if role in there}

    @property
    def has_targets(self) -> bool:
        return "target" in (self.images if self.layout.one_folder else self.folders)

    @property
    def is_named(self) -> bool:
        """Whether a folder's name tells the layout."""
        return bool(self.base.replace("{split}", "")) or self.root.resolve().name in self.layout.bases

    def folder(self, role: str) -> Path:
        """The folder of a view or of the targets."""
        return self.folders.get(role, self.folders["center"])


def _redistributed(name: str, suffix: str) -> Layout:
    folders = {"center": "inputC", "left": "inputL", "right": "inputR", "target": "target"}
    bases = ("{split}/DPDD", "{split}", "DPDD", "")
    return Layout(name, {role: folder + suffix for role, folder in folders.items()}, bases)


def _pixel(name: str, suffix: str) -> Layout:
    folders = {"center": "{split}_c", "left": "{split}_l", "right": "{split}_r"}
    bases = ("", "dd_dp_dataset_pixel", "PixelDP")
    # Turned as the public evaluation of IFAN turns them.
    return Layout(name, {role: folder + suffix for role, folder in folders.items()}, bases, quarter_turns=1)


PAIRED = {
    "center": "input blur lq source images inputs blurred blurry defocus defocused",
    "target": "target gt sharp hq targets aif",
}
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
        Layout("paired", PAIRED, ("{split}", "")),
        Layout("realdof", {"center": "source", "target": "target"}, ("RealDOF", "")),
        _pixel("pixeldp", "/source"),
        _pixel("pixeldp_flat", ""),
        Layout("cuhk", {"center": "image"}, ("", "CUHK"), pattern="out_of_focus*"),
        Layout("paired_flat", {"center": ""}, ("{split}", ""), one_folder=True),
        Layout("images", {"center": ""}, ("",)),
    )
}


def find_layout(root: Path, split: str, layout: str = "auto", targets: bool = True) -> Found:
    """The layout of a folder.

    Where the inputs' folders fit a layout with targets and one without, as those of DPDD and PixelDP, the folder of the
    targets decides, unless the caller needs `targets`: then what is missing is the targets.

    Raises:
        UserError: no such folder, or nothing in it that is known.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected a data set. See data/README.md for the layouts")
    if layout != "auto" and layout not in LAYOUTS:
        raise UserError(f"no layout is called '{layout}'; expected auto or one of: {', '.join(LAYOUTS)}")
    without_targets = None
    for candidate in LAYOUTS.values() if layout == "auto" else [LAYOUTS[layout]]:
        found = candidate.find(root, split)
        if found is None:
            continue
        lacks = candidate.has_targets and not found.folder("target").is_dir()
        if not (lacks and not targets and layout == "auto"):
            return found
        without_targets = without_targets or found
    if without_targets:
        return without_targets
    folders = sorted(child.name for child in root.iterdir() if child.is_dir() and child.name[0] != ".")
    there = ", ".join(folders) or "no folders at all"
    raise UserError(f"{root}: no {split} split found; expected {expected(split, layout)}; found in {root}: {there}")


def expected(split: str, layout: str) -> str:
    """The folders in which a split should lie, for a message about a layout that was asked for, or about any."""
    if layout == "auto":
        ways = f"{LAYOUTS['dpdd'].expected(split)} (DPDD as published), {LAYOUTS['paired'].expected(split)} (pairs)"
        return f"{ways}, or another layout of data/README.md"
    return f"{LAYOUTS[layout].expected(split)} (layout {layout})"


def check_certain(found: Found) -> None:
    """Refuses a set without targets whose inputs lie as those of a set with targets do, unless a folder's name tells.

    DPDD whose targets were not copied yet would be taken for PixelDP.

    Raises:
        UserError: it is not clear which of the two it is.
    """
    if found.has_targets or found.is_named:
        return
    for other in LAYOUTS.values():
        candidate = other.find(found.root, found.split) if other.has_targets else None
        if candidate and candidate.folder("center") == found.folder("center"):
            raise UserError(
                f"{candidate.folder('target')}: no such folder; expected all-in-focus images there, or --layout "
                f"{found.layout.name} if this is {found.layout.name}, which has none"
            )


def splits_in(root: Path, layout: str = "auto") -> list[str]:
    """The splits that a folder holds, with targets or without.

    Raises:
        UserError: none.
    """
    found: list[str] = []
    for split in SPLITS:
        try:
            find_layout(root, split, layout, targets=False)
        except UserError:
            if split == SPLITS[-1] and not found:
                raise
        else:
            found.append(split)
    return found


def _folder(place: Path, names: str) -> Path:
    """The folder of one of several names, in any case; the first name where none is there.

    Raises:
        UserError: two of them are there.
    """
    if not names:
        return place
    first, *others = names.split()
    if not others or (place / first).is_dir() or not place.is_dir():
        return place / first
    there = sorted(child for child in place.iterdir() if child.name.lower() in names.split() and child.is_dir())
    if len(there) > 1:
        raise UserError(
            f"{place}: {' and '.join(child.name for child in there)} could both be the folder of these images; keep "
            "one of them there"
        )
    return there[0] if there else place / first
