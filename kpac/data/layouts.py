"""Lists the scenes of a data set's folder."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kpac.data.folders import LAYOUTS, SPLITS, FoundLayout, check_certain, expected, find_layout, splits_in
from kpac.data.groups import groups_of
from kpac.data.pairing import Pairs, name_of, pair, same_names
from kpac.errors import UserError
from kpac.images import left_out, left_out_text, say_left_out

__all__ = ["LAYOUTS", "SPLITS", "SceneFiles", "find_scenes", "splits_in"]

log = logging.getLogger(__name__)
WHAT = {
    "center": "defocused images",
    "left": "left dual-pixel views",
    "right": "right dual-pixel views",
    "target": "all-in-focus images",
}


@dataclass(frozen=True)
class SceneFiles:
    """The files of one scene.

    Args:
        name: the stem of its center view; bytes that are not UTF-8 are escaped, since logs and results are text.
        views: view name -> file, in the requested order.
        target: the all-in-focus image; None in sets without targets.
        group: "indoor" or "outdoor" if the set is labelled, otherwise None.
        quarter_turns: counter-clockwise turns by 90 degrees to apply after reading, so that the scene is upright and
            the left and right views differ along rows.
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


def find_scenes(
    root: str | Path,
    split: str,
    views: Sequence[str] = ("center",),
    layout: str = "auto",
    targets: bool = True,
    pair_by_order: bool = False,
) -> list[SceneFiles]:
    """Lists the scenes of one split, sorted by name, without opening an image.

    Args:
        root: the data set's folder.
        split: "train", "val" or "test"; an undivided set is a test split.
        views: the views that every scene must have: "center", "left", "right".
        layout: a name in `LAYOUTS`, or "auto" to detect it.
        targets: whether every scene must have a target.
        pair_by_order: pairs inputs with targets, and with other views, by the sorted order of their files.

    Raises:
        UserError: the layout is unknown or ambiguous, a folder is empty, two images have the same name, names do not
            pair, or a scene lacks a view or a target. The message names the file or folder.
    """
    root = Path(root)
    if split not in SPLITS:
        raise UserError(f"no split is called '{split}'; expected one of: {', '.join(SPLITS)}")
    found = find_layout(root, split, layout, targets)
    if layout == "auto":
        check_certain(found)
    if targets and not found.has_targets:
        raise UserError(
            f"{root}: looks like a folder of images without targets (layout '{found.layout.name}'); training and "
            f"scoring need targets. Expected for the {split} split: {expected(split, layout)}"
        )
    centers = _images(found, "center")
    partners = {"center": dict(zip(centers, centers, strict=True))}
    roles = [view for view in dict.fromkeys(views) if view != "center"]
    if found.has_targets and (targets or found.folder("target").is_dir()):
        roles.append("target")
    for role in roles:
        pairs = pair(centers, _images(found, role), pair_by_order)
        say_how(pairs, found.folder(role))
        what = "target" if role == "target" else f"{role} view"
        partners[role] = dict(zip(centers, pairs.require_all(what, found.folder(role)), strict=True))
    groups = groups_of(found.folder("center").parent, len(centers))
    turns = _quarter_turns(found, layout)
    return [
        SceneFiles(
            _text(name_of(path)),
            {view: partners[view][path] for view in views},
            partners["target"][path] if "target" in partners else None,
            group,
            turns,
        )
        for path, group in zip(centers, groups, strict=True)
    ]


def say_how(pairs: Pairs, folder: Path) -> None:
    """Logs how images were paired, unless by equal names or by DPDD's published list."""
    if pairs.rule:
        log.warning("%s and %s: %s", pairs.images[0].parent, folder, pairs.rule)


def _quarter_turns(found: FoundLayout, asked: str) -> int:
    """Number of quarter turns that make the images upright, for layouts whose published images are rotated."""
    turns = found.layout.quarter_turns
    if not turns:
        return 0
    name = found.layout.name
    if asked == name or found.is_named:
        log.warning("%s: PixelDP's images are stored rotated; turning them upright (layout %s)", found.root, name)
        return turns
    log.warning(
        "%s: images are not turned; PixelDP's images, which are stored rotated, need the layout %s",
        found.root,
        name,
    )
    return 0


def _text(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")


def _images(found: FoundLayout, role: str) -> list[Path]:
    folder, layout = found.folder(role), found.layout
    if role not in found.folders and role not in found.images:
        raise UserError(
            f"{found.root}: layout '{layout.name}' has no {role} view; expected DPDD for dual-pixel networks, or names "
            f"such as 1_{role}.png in {folder}"
        )
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected {WHAT[role]} there")
    say_left_out(folder)
    images = found.images.get(role, [])
    if not images:
        others = [other for other, paths in found.images.items() if paths and found.folder(other) == folder]
        if others:
            instead = "; in the layout 'images' every image is a scene" if layout.one_folder else ""
            raise UserError(f"{folder}: its names mark {' and '.join(others)} images, but no {role} ones{instead}")
        skipped = left_out_text(left_out(folder))
        raise UserError(
            f"{folder}: holds no images; expected {WHAT[role]} as PNG, TIFF or JPEG{skipped and '; ' + skipped}"
        )
    for first, second in same_names(images):
        raise UserError(f"{second}: has the same name as {first}; expected one image per scene, so rename one of them")
    return images
