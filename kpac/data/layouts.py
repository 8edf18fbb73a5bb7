"""Folders on disk -> a list of scenes.

DPDD's published layout, which the synthetic data sets share:

    {train,val,test}_c/source/*.png   defocused center views
    {train,val,test}_c/target/*.png   all-in-focus images
    {train,val,test}_l/source/*.png   left dual-pixel views, under the center views' names
    {train,val,test}_r/source/*.png   right dual-pixel views, likewise

In DPDD itself the source and the target of one scene have different names, and both lists pair up in sorted order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kpac.data.images import list_images
from kpac.errors import UserError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SceneFiles:
    """Where one scene lies.

    Args:
        name: the stem of its center view.
        views: view name -> file, in the order that was asked for.
        target: the all-in-focus image.
    """

    name: str
    views: Mapping[str, Path]
    target: Path

    @property
    def paths(self) -> list[Path]:
        """All files of the scene, the target last."""
        return [*self.views.values(), self.target]


def find_scenes(root: str | Path, split: str, views: Sequence[str] = ("center",)) -> list[SceneFiles]:
    """Lists the scenes of one split, sorted by name, without opening an image.

    Args:
        root: the data set's folder.
        split: "train", "val" or "test".
        views: the views that every scene must have: "center", "left", "right".

    Raises:
        UserError: a folder is missing or empty, or a scene lacks a view or a target; the message names it.
    """
    root = Path(root)
    if split not in SPLITS:
        raise UserError(f"no split is called '{split}'; expected one of: {', '.join(SPLITS)}")
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected a data set in DPDD's layout. See data/README.md")
    centers = _images(root, f"{split}_c/source", "defocused images")
    targets = _pair(centers, _images(root, f"{split}_c/target", "all-in-focus images"))
    files = {"center": dict(zip([path.stem for path in centers], centers, strict=True))}
    for view in set(views) - {"center"}:
        found = _images(root, f"{split}_{view[0]}/source", f"{view} dual-pixel views")
        files[view] = {path.stem: path for path in found}
        for path in centers:
            if path.stem not in files[view]:
                raise UserError(f"{found[0].parent}: no {view} view named {path.name}, which {path.parent} has")
    return [
        SceneFiles(path.stem, {view: files[view][path.stem] for view in views}, target)
        for path, target in zip(centers, targets, strict=True)
    ]


def _images(root: Path, folder: str, what: str) -> list[Path]:
    path = root / folder
    if not path.is_dir():
        there = ", ".join(sorted(child.name for child in root.iterdir() if child.is_dir())) or "no folders at all"
        raise UserError(f"{path}: no such folder; expected {what} there, found in {root}: {there}")
    images = list_images(path)
    if not images:
        raise UserError(f"{path}: holds no images; expected {what} as PNG, TIFF or JPEG")
    return images


def _pair(sources: list[Path], targets: list[Path]) -> list[Path]:
    """The target of each source: of the same name, or, when no name is shared, at the same sorted position."""
    by_name = {path.stem: path for path in targets}
    if not any(path.stem in by_name for path in sources):
        if len(sources) != len(targets):
            raise UserError(
                f"{targets[0].parent}: holds {len(targets)} images, {sources[0].parent} {len(sources)}; "
                "expected as many, since no names are shared and they pair by sorted position"
            )
        return targets
    for path in sources:
        if path.stem not in by_name:
            raise UserError(f"{targets[0].parent}: no target named {path.name}, which {path.parent} has")
    return [by_name[path.stem] for path in sources]
