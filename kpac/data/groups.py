"""Which scenes are indoor and which outdoor."""

from pathlib import Path

import numpy as np

from kpac.errors import UserError

GROUPS = ("indoor", "outdoor")


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
