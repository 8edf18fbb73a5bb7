"""Makes a data set of links to scenes of several synthetic data sets, leaving out scenes with little blur.

    python scripts/mix_data.py OUTPUT data/synthetic:4 data/synthetic_waves:0

Each source is a folder that `kpac data synthesize` made, and a blur radius in pixels. Scenes are taken if their largest
blur radius is at least this; validation and test scenes from the first source alone. Dual-pixel views are linked if
every source has them.
"""

import json
import sys
from pathlib import Path


def mix(output: Path, sources: list[tuple[Path, float]]) -> dict[str, int]:
    """Links the scenes; returns the number of scenes in each split."""
    views = [view for view in "clr" if all((root / f"train_{view}").is_dir() for root, _ in sources)]
    counts: dict[str, int] = {}
    for number, (root, smallest) in enumerate(sources):
        for scene in json.loads((root / "synthesis.json").read_text())["scenes"]:
            split = scene["split"]
            blurred = max(map(abs, scene["blur_radius_px"])) >= smallest
            if not blurred or (split != "train" and number > 0):
                continue
            counts[split] = counts.get(split, 0) + 1
            for folder in (*(f"{split}_{view}/source" for view in views), f"{split}_c/target"):
                (output / folder).mkdir(parents=True, exist_ok=True)
                link = output / folder / f"{root.name}_{scene['name']}.png"
                link.symlink_to((root / folder / f"{scene['name']}.png").resolve())
    return counts


if __name__ == "__main__":
    folder, *named = sys.argv[1:]
    parts = [name.rpartition(":") for name in named]
    print(folder, mix(Path(folder), [(Path(root), float(smallest)) for root, _, smallest in parts]))
