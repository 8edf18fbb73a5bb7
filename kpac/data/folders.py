"""The known folder layouts of data sets, and their detection.

A layout is detected by its folders; `LAYOUTS` are tried in order.
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
    """One folder layout of data sets.

    Args:
        name: its name in a configuration.
        folders: view name, or "target", -> folder, relative to one of `bases`. Several names, separated by spaces, are
            alternatives; case does not matter. Only the center folder may be "": the images lie in the base itself.
        bases: where the folders can lie, relative to the root; "{split}" stands for the split. A base without it holds
            one undivided set, which counts as the test split.
        pattern: glob pattern of the inputs' file names; other files in the center folder are ignored.
        quarter_turns: counter-clockwise turns by 90 degrees that make the published images upright. Images are turned
            only if the folder has one of the names in `bases`, or the layout was requested by name.
        one_folder: the base holds both views and targets, distinguished by their names; see `kpac.data.roles`.
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

    def find(self, root: Path, split: str) -> "FoundLayout | None":
        """Looks for this layout in a folder, for a split; None if it is not found.

        The folder of the center views must exist. In layouts without targets, it must also contain images.

        Raises:
            UserError: two folders match one role.
        """
        for base in self.bases:
            if "{split}" not in base + self.folders["center"] and split != "test":
                continue
            place = root / base.format(split=split)
            folders = {role: _folder(place, names.format(split=split)) for role, names in self.folders.items()}
            found = FoundLayout(self, root, base, split, folders)
            if not folders["center"].is_dir():
                continue
            if self.one_folder and len(found.images) < 2:
                continue
            if self.has_targets or any(found.images.values()):
                return found
        return None

    def expected(self, split: str) -> str:
        """The folders of a split, as text for error messages."""
        roles = [role for role in ("center", "target") if self.folders.get(role)]
        if not roles:
            return f"images in {split}/ or in the folder itself" if "{split}" in self.bases else "images in it"
        prefix = "{split}/" if "{split}" in self.bases else ""
        names = [(prefix + self.folders[role].split()[0]).format(split=split) for role in roles]
        return " and ".join(names)


@dataclass(frozen=True)
class FoundLayout:
    """A layout that was found on disk, for one split."""

    layout: Layout
    root: Path  # the data set's folder
    base: str  # the entry of `layout.bases` that matched
    split: str
    folders: Mapping[str, Path]  # view name, or "target", -> folder, which need not exist

    @cached_property
    def images(self) -> dict[str, list[Path]]:
        """View name, or "target", -> images, sorted by name; left and right are absent if their folders are missing."""
        images = {role: list_images(folder) for role, folder in self.folders.items()}
        center = [path for path in images["center"] if fnmatchcase(path.name, self.layout.pattern)]
        there = {role: found for role, found in images.items() if role == "target" or self.folders[role].is_dir()}
        there["center"] = center
        targets = {name_of(path) for path in there.get("target", [])}
        have_targets = any(name_of(path) in targets for path in center)  # then every image is an input
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
        """Whether a folder's name identifies the layout."""
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
    # One quarter turn, as in IFAN's public evaluation.
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


def find_layout(root: Path, split: str, layout: str = "auto", targets: bool = True) -> FoundLayout:
    """Detects the layout of a folder.

    The input folders may match a layout with targets and one without, such as DPDD and PixelDP. The layout with targets
    is chosen if the target folder exists, or if `targets` is true; the latter makes missing targets an error later.

    Raises:
        UserError: there is no such folder, or it has no known layout.
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
    """The expected folders of a split, as text for error messages; for one layout, or for all with "auto"."""
    if layout == "auto":
        ways = f"{LAYOUTS['dpdd'].expected(split)} (DPDD as published), {LAYOUTS['paired'].expected(split)} (pairs)"
        return f"{ways}, or another layout of data/README.md"
    return f"{LAYOUTS[layout].expected(split)} (layout {layout})"


def check_certain(found: FoundLayout) -> None:
    """Checks that a set without targets is not one with a missing target folder.

    For example, DPDD without its targets looks like PixelDP. A folder's name may tell them apart.

    Raises:
        UserError: the set could be either of the two.
    """
    if found.has_targets or found.is_named:
        return
    for other in LAYOUTS.values():
        candidate = other.find(found.root, found.split) if other.has_targets else None
        if candidate and candidate.folder("center") == found.folder("center"):
            raise UserError(
                f"{candidate.folder('target')}: no such folder; expected all-in-focus images there, unless the layout "
                f"is {found.layout.name}, which has none",
                "layout",
                layout=found.layout.name,
            )


def splits_in(root: Path, layout: str = "auto") -> list[str]:
    """The splits in a folder, with or without targets.

    Raises:
        UserError: there are none.
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
    """The folder with one of several names, ignoring case; if there is none, the path for the first name.

    Raises:
        UserError: two of them exist.
    """
    if not names:
        return place
    first, *others = names.split()
    if not others or (place / first).is_dir() or not place.is_dir():
        return place / first
    there = sorted(child for child in place.iterdir() if child.name.lower() in names.split() and child.is_dir())
    if len(there) > 1:
        raise UserError(
            f"{place}: {' and '.join(child.name for child in there)} are names of the same folder in this layout; "
            "rename one of them"
        )
    return there[0] if there else place / first
