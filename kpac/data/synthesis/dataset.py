"""Synthesizes a data set in DPDD's published layout: sharp photographs, defocused by a thin lens.

    {train,val,test}_c/source/NAME.png   defocused center view, 16 bits
    {train,val,test}_c/target/NAME.png   the photograph
    {train,val,test}_l/source/NAME.png   left dual-pixel view
    {train,val,test}_r/source/NAME.png   right dual-pixel view
    {train,val,test}_c/blur/NAME.tiff    signed blur radius in pixels, float32
    synthesis.json                       settings, versions, and the origin of each scene

Each dual-pixel view is rendered through one half of the aperture. The center view is their mean in linear light, as on
a sensor whose pixels are divided in two.
"""

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from kpac.data.synthesis.photos import Photo
from kpac.data.synthesis.render import render
from kpac.data.synthesis.settings import SynthesisSettings
from kpac.data.workers import end_with_the_parent
from kpac.errors import UserError
from kpac.files import atomic_write, sha256_of
from kpac.images import from_float, to_float, write_pixels

MANIFEST = "synthesis.json"


def synthesize(
    photos: Sequence[Photo], output: Path, settings: SynthesisSettings, workers: int = 2, overwrite: bool = False
) -> Path:
    """Builds a data set; `output` appears only when it is complete.

    Args:
        photos: the photographs to make scenes from, each with its split.
        output: the folder to create.
        settings: the camera and the seed. The result does not depend on the number of workers.
        workers: number of processes.
        overwrite: replaces an earlier data set under `output`.

    Returns:
        `output`. An existing data set made from the same photographs with the same settings is kept.

    Raises:
        UserError: `output` has other content, or a photograph cannot be read.
    """
    recipe = {"settings": settings.model_dump(mode="json"), "photos": [_source(photo) for photo in photos]}
    if _is_made(output, recipe) and not overwrite:
        return output
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; expected a folder")
    if output.exists() and any(output.iterdir()) and not (overwrite and (output / MANIFEST).is_file()):
        other = f"{output}: does not hold this data set"
        if (output / MANIFEST).is_file():
            raise UserError(other, "overwrite")
        raise UserError(f"{other}; name another folder")
    counts = scenes_of_each(len(photos), settings.scenes)
    partial_output = output.with_name(output.name + ".partial")
    shutil.rmtree(partial_output, ignore_errors=True)
    jobs = [(photo, index, rank) for rank, photo in enumerate(photos) for index in range(counts[rank])]
    try:
        for split in sorted({photo.split for photo in photos}):
            halves = ("l/source", "r/source") if settings.views == "dual" else ()
            for folder in ("c/source", "c/target", "c/blur", *halves):
                (partial_output / f"{split}_{folder}").mkdir(parents=True)
        # Spawned, not forked: OpenCV's and PyTorch's threads do not survive a fork.
        with ProcessPoolExecutor(workers, get_context("spawn"), end_with_the_parent) as pool:
            work = pool.map(partial(_make_scene, partial_output, settings), *zip(*jobs, strict=True))
            scenes = list(tqdm(work, total=len(jobs), desc=f"rendering {output}", unit="scene", disable=None))
        manifest = {
            "recipe": recipe,
            "scenes": scenes,
            "versions": {"opencv": cv2.__version__, "numpy": np.__version__},
        }
        (partial_output / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        if output.exists():
            shutil.rmtree(output)
        partial_output.rename(output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(partial_output, ignore_errors=True)
    return output


def scenes_of_each(photos: int, scenes: int | None) -> list[int]:
    """Number of scenes for each photograph.

    Raises:
        UserError: there are fewer scenes than photographs.
    """
    if scenes is None:
        return [2] * photos
    if scenes < photos:
        raise UserError(f"scenes: {scenes} for {photos} photographs; expected at least one per photograph")
    return [scenes // photos + (rank < scenes % photos) for rank in range(photos)]


def _make_scene(root: Path, settings: SynthesisSettings, photo: Photo, index: int, rank: int) -> dict[str, Any]:
    pixels, depth = photo.pixels(settings.size)
    scene = render(to_float(pixels), depth, settings, seed=(settings.seed, rank, index))
    name = f"{photo.name}_{index}"
    folders = {f"{view[0]}/source": image for view, image in scene.views.items()} | {"c/target": scene.target}
    for folder, image in folders.items():
        write_pixels(root / f"{photo.split}_{folder}" / f"{name}.png", from_float(image, 16))
    with atomic_write(root / f"{photo.split}_c/blur/{name}.tiff") as partial:
        partial.write_bytes(cv2.imencode(".tiff", scene.blur_radius)[1].tobytes())
    return {"name": name, "split": photo.split, "photo": photo.name, **scene.facts}


def _source(photo: Photo) -> dict[str, str | None]:
    files = (photo.path, photo.depth_path)
    digest, depth = (sha256_of(path) if path else None for path in files)
    return {"name": photo.name, "split": photo.split, "sha256": digest, "depth_sha256": depth}


def _is_made(output: Path, recipe: dict[str, Any]) -> bool:
    try:
        return json.loads((output / MANIFEST).read_text())["recipe"] == recipe
    except (OSError, ValueError, KeyError):
        return False
