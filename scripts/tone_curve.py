"""Measures how strong the tone curve of a camera is, from pairs of defocused and sharp photographs.

    python scripts/tone_curve.py data/DPDD --split val

A lens blurs light, not image values. In every tile, a kernel is fitted that blurs the target's light into the input's,
once for each contrast of the curve in `kpac.data.synthesis.camera`. The better the curve, the smaller the error. The
table gives the error in image values, over the tiles of a scene in which the two images differ most.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from kpac.data.layouts import find_scenes
from kpac.data.synthesis.camera import develop, undevelop
from kpac.errors import UserError
from kpac.images import read_pixels, to_float

CONTRASTS = (0.0, 0.25, 0.5, 0.75, 1.0)
TILE, SIDE, TILES = 128, 21, 8  # side of a tile and of a kernel in pixels; tiles in a scene
RIDGE = 1e-5  # of the mean variance: keeps the kernel defined in tiles with little detail


def fit_error(target: np.ndarray, blurred: np.ndarray, contrast: float) -> float:
    """Mean squared error, in image values, of the best kernel and offset in the light of a curve of this contrast.

    Args:
        target, blurred: a tile of each image, in [0, 1].
        contrast: of the curve, 0 for sRGB alone to 1.
    """
    windows = np.lib.stride_tricks.sliding_window_view(undevelop(target, contrast), (SIDE, SIDE))
    light = np.column_stack([windows.reshape(-1, SIDE**2), np.ones(windows.shape[0] * windows.shape[1])])
    reach = SIDE // 2
    inner = blurred[reach:-reach, reach:-reach].ravel()
    products = light.T @ light
    ridge = RIDGE * np.trace(products) / len(products) * np.eye(len(products))
    kernel = np.linalg.solve(products + ridge, light.T @ undevelop(inner, contrast))
    return float(((develop(light @ kernel, contrast) - inner) ** 2).mean())


def scene_errors(target: np.ndarray, blurred: np.ndarray) -> list[float]:
    """Mean error for each of `CONTRASTS`, from one channel of both images, H x W in [0, 1], H and W at least `TILE`."""
    rows, columns = (range(0, length - TILE + 1, TILE // 2) for length in target.shape)
    tiles = [(slice(row, row + TILE), slice(column, column + TILE)) for row in rows for column in columns]
    tiles.sort(key=lambda tile: -((target[tile] - blurred[tile]) ** 2).mean())
    return [
        float(np.mean([fit_error(target[tile], blurred[tile], contrast) for tile in tiles[:TILES]]))
        for contrast in CONTRASTS
    ]


def main(arguments: list[str] | None = None) -> None:
    """Prints the table; see the module.

    Raises:
        UserError: the folder is no data set, or has no such split, no targets or too small images.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="data set")
    parser.add_argument("--split", default="val", help="split of the data set (default: val)")
    options = parser.parse_args(arguments)
    scenes = find_scenes(options.data, options.split, ("center",))
    print("PSNR [dB] of the input, predicted from the target with a curve of contrast")
    print(f"{'scene':20s}" + "".join(f"{contrast:8.2f}" for contrast in CONTRASTS))
    found = []
    for scene in scenes:
        if scene.target is None:
            raise UserError(f"{scene.name}: expected a target")
        target, blurred = (to_float(read_pixels(path))[..., 1] for path in (scene.target, scene.views["center"]))
        if min(target.shape) < TILE:
            raise UserError(f"{scene.target}: expected at least {TILE} pixels on each side")
        found.append(-10 * np.log10(scene_errors(target, blurred)))
        print(f"{scene.name:20s}" + "".join(f"{value:8.2f}" for value in found[-1]), flush=True)
    print(f"{'mean':20s}" + "".join(f"{value:8.2f}" for value in np.mean(found, axis=0)))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
