"""Which target belongs to which input, and which scene to which group, where file names do not say it."""

import json
import logging
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from kpac.errors import UserError

GROUPS = ("indoor", "outdoor")
log = logging.getLogger(__name__)


@cache
def published_pairs() -> Mapping[str, Mapping[str, str]]:
    """DPDD's published lists: split -> source name -> target name (Abuolaim and Brown, ECCV 2020)."""
    lists = json.loads((files("kpac.data") / "dpdd.json").read_text(encoding="utf-8"))["splits"]
    return {split: dict(pairs) for split, pairs in lists.items()}


def pair(sources: list[Path], targets: list[Path]) -> list[Path]:
    """The target of each source.

    By DPDD's published list where the names are the list's, else by name, else, when no name is shared, by sorted
    position, which is said aloud.

    Raises:
        UserError: a source without a target, named.
    """
    by_name = {path.stem: path for path in targets}
    folder, source_folder = targets[0].parent, sources[0].parent
    names = target_names(sources, targets)
    if names is None:
        if len(sources) == len(targets):
            log.warning("%s and %s share no names: pairing them in sorted order", source_folder, folder)
            return targets
        raise UserError(
            f"{folder}: holds {len(targets)} images, {source_folder} {len(sources)}; "
            "expected as many, since no names are shared and they pair by sorted position"
        )
    for path, name in zip(sources, names, strict=True):
        if name not in by_name:
            raise UserError(f"{folder}: no target named {name}{path.suffix}, which belongs to {path}")
    return [by_name[name] for name in names]


def same_names(images: list[Path]) -> list[tuple[Path, Path]]:
    """Images that no name tells apart, such as a.jpg and a.png: the first of a name, with each of the others."""
    first: dict[str, Path] = {}
    return [(first[path.stem], path) for path in images if first.setdefault(path.stem, path) != path]


def target_names(sources: list[Path], targets: list[Path]) -> list[str] | None:
    """The stem that each source's target should have; None when they can pair by sorted position alone."""
    there = {path.stem for path in targets}
    listed = {source: target for pairs in published_pairs().values() for source, target in pairs.items()}
    if all(path.stem in listed for path in sources) and any(listed[path.stem] in there for path in sources):
        return [listed[path.stem] for path in sources]
    if any(path.stem in there for path in sources):
        return [path.stem for path in sources]
    return None


def groups_of(folder: Path, count: int) -> list[str | None]:
    """Indoor or outdoor, from the label files of the redistributed DPDD: 1-based positions in the sorted list.

    Args:
        folder: where `indoor_labels.npy` and `outdoor_labels.npy` lie, if they do.
        count: scenes in the list.

    Raises:
        UserError: labels that do not fit the list.
    """
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
