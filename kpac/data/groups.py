"""Labels of scenes: indoor or outdoor."""

from pathlib import Path

import numpy as np

from kpac.errors import UserError

GROUPS = ("indoor", "outdoor")


def groups_of(folder: Path, count: int) -> list[str | None]:
    """Reads "indoor" or "outdoor" for each scene from the label files of the redistributed DPDD.

    The label files hold 1-based positions in the sorted list of scenes.

    Args:
        folder: the folder of `indoor_labels.npy` and `outdoor_labels.npy`, which may be missing.
        count: number of scenes in the list.

    Raises:
        UserError: the labels do not fit the list.
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
