"""Sharp photographs to synthesize from: a folder, or the photographs that come with scikit-image."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from kpac.data.layouts import SPLITS
from kpac.data.synthesis.depth import fill_holes
from kpac.errors import UserError
from kpac.files import sha256_of
from kpac.images import list_images, read_pixels, say_left_out

SKIMAGE_SPLITS = {
    # The motorcycle's right view shows the same scene and belongs to no split.
    "test": ("astronaut", "motorcycle_left"),
    "val": ("camera",),
    "train": (
        "chelsea",
        "brick",
        "coffee",
        "coins",
        "grass",
        "gravel",
        "hubble_deep_field",
        "ihc",
        "retina",
        "rocket",
    ),
}


@dataclass(frozen=True)
class Photo:
    """A sharp photograph, read on demand."""

    name: str  # unique within a set
    split: str  # "train", "val" or "test"
    path: Path
    depth_path: Path | None = None  # the file of the depth map; None if there is none
    read_depth: Callable[[Path], np.ndarray] | None = None  # reads that file into metres, H x W

    def pixels(self, size: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Reads the photograph, H x W x 3 integers, and its depth map in metres; reduces the longest side to `size`."""
        pixels = read_pixels(self.path)
        depth = self.read_depth(self.depth_path) if self.depth_path and self.read_depth else None
        height, width = pixels.shape[:2]
        if depth is not None and depth.shape != (height, width):
            found = f"{depth.shape[1]}x{depth.shape[0]}"
            raise UserError(f"{self.path}: is {width}x{height}, its depth map is {found}; expected the same size")
        scale = size / max(height, width)
        if scale < 1:
            reduced = (round(width * scale), round(height * scale))
            pixels = cv2.resize(pixels, reduced, interpolation=cv2.INTER_AREA)
            depth = None if depth is None else cv2.resize(depth, reduced, interpolation=cv2.INTER_NEAREST)
        return pixels, depth


def skimage_photos() -> list[Photo]:
    """The photographs that come with scikit-image; the motorcycle has a measured depth map."""
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    files = {path.stem: path for path in list_images(folder)}
    photos = []
    for split, names in SKIMAGE_SPLITS.items():
        for name in names:
            if name not in files:
                raise UserError(f"{folder}: this scikit-image has no '{name}'; install the version of constraints.txt")
            depth = (folder / "motorcycle_disp.npz", _motorcycle_depth) if name == "motorcycle_left" else ()
            photos.append(Photo(name, split, files[name], *depth))
    return photos


def folder_photos(folder: Path, depth_folder: Path | None, val: float, test: float, seed: int) -> list[Photo]:
    """The photographs of a folder, split by its subfolders train, val and test, or at random without them.

    Two files with the same bytes count as one photograph, so that none appears in two splits.

    Args:
        folder: the folder of the photographs, or of the three subfolders.
        depth_folder: folder of depth maps for some or all of them, with the same stem: `.npy` in metres, or 16-bit
            `.png` in millimetres, 0 for unknown.
        val, test: without subfolders, the fractions of the photographs for these splits; each gets at least one.
        seed: seed of the random split.

    Raises:
        UserError: there is no such folder, there are too few photographs for three splits, or two subfolders hold the
            same photograph.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a folder of sharp photographs")
    given = {split: list_images(folder / split) for split in SPLITS}
    for place in (folder, *(folder / split for split in SPLITS)):
        say_left_out(place)
    divided = _given_splits(folder, given) if any(given.values()) else _random_splits(folder, val, test, seed)
    first: dict[str, Path] = {}
    for path, _ in divided:
        if path.stem in first:
            raise UserError(f"{path}: has the same name as {first[path.stem]}; rename one of the two")
        first[path.stem] = path
    return [Photo(path.stem, split, path, _depth_file(depth_folder, path.stem), _read_depth) for path, split in divided]


def _given_splits(folder: Path, given: dict[str, list[Path]]) -> list[tuple[Path, str]]:
    loose = list_images(folder)
    if loose:
        raise UserError(f"{loose[0]}: is not in one of the folders {', '.join(SPLITS)}; move it into one of them")
    by_content: dict[str, tuple[Path, str]] = {}
    for split, paths in given.items():
        if not paths:
            raise UserError(f"{folder / split}: holds no photographs; expected some in each of {', '.join(SPLITS)}")
        for path in paths:
            earlier, its_split = by_content.setdefault(sha256_of(path), (path, split))
            if its_split != split:
                raise UserError(f"{path}: is the same photograph as {earlier}, in another split; remove one of the two")
    return list(by_content.values())


def _random_splits(folder: Path, val: float, test: float, seed: int) -> list[tuple[Path, str]]:
    by_content: dict[str, Path] = {}
    for path in list_images(folder):
        by_content.setdefault(sha256_of(path), path)
    paths = sorted(by_content.values())
    if len(paths) < 3:
        raise UserError(f"{folder}: holds {len(paths)} different photographs; expected 3 or more, one for each split")
    counts = {"test": max(1, round(test * len(paths))), "val": max(1, round(val * len(paths)))}
    if sum(counts.values()) >= len(paths):
        raise UserError(f"{folder}: none of {len(paths)} photographs is left for training", "smaller_splits")
    order = np.random.default_rng([seed, 1]).permutation(len(paths))
    splits = ["test"] * counts["test"] + ["val"] * counts["val"]
    splits += ["train"] * (len(paths) - len(splits))
    return [(paths[i], split) for i, split in sorted(zip(order, splits, strict=True))]


def _depth_file(folder: Path | None, stem: str) -> Path | None:
    if folder is None:
        return None
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected depth maps, NAME.npy in metres or NAME.png in millimetres")
    return next((path for suffix in (".npy", ".png") if (path := folder / (stem + suffix)).is_file()), None)


def _read_depth(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        try:
            with path.open("rb") as file:  # not np.load, which also accepts other kinds of files
                depth: np.ndarray = np.lib.format.read_array(file, allow_pickle=False).astype(np.float32)
        except (ValueError, TypeError, OSError, MemoryError):
            raise UserError(f"{path}: not a NumPy array file; expected depth in metres, H x W") from None
    else:
        depth = read_pixels(path)[..., 0].astype(np.float32) / 1000
    known = np.isfinite(depth) & (depth > 0)
    if depth.ndim != 2 or not known.any():
        raise UserError(f"{path}: expected depth in metres, H x W, with values above 0; found shape {depth.shape}")
    return fill_holes(np.where(known, depth, np.nan))


def _motorcycle_depth(path: Path) -> np.ndarray:
    """Depth from disparity, with the calibration in scikit-image's documentation of `stereo_motorcycle`."""
    focal_length_px, offset_px, baseline_mm = 994.978, 31.086, 193.001
    with np.load(path, allow_pickle=False) as file:
        disparity = fill_holes(file["arr_0"])
    return (baseline_mm * focal_length_px / (disparity + offset_px) / 1000).astype(np.float32)
