"""Comparison sheets and error maps of several methods, from the output images that their evaluations kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps

from kpac.config import nearest
from kpac.data.dataset import SceneDataset
from kpac.data.layouts import SceneFiles, find_scenes
from kpac.errors import UserError
from kpac.evaluation.evaluator import to_array
from kpac.evaluation.methods import read_output
from kpac.evaluation.protocols import Protocol
from kpac.evaluation.results import protocol_of
from kpac.files import short_path
from kpac.reporting.comparison import ResultFiles, data_title
from kpac.reporting.figures import ZOOM_RATIO, Box, Panel, SheetRow, largest_differences, note, sheet
from kpac.reporting.outputs import KeptOutputs

COLORS = "inferno"
WHITE_AT = 99.5  # percentile of the input's error that is drawn in the brightest colour


def comparison_sheet(
    found: ResultFiles,
    scenes: Sequence[str],
    paths: Sequence[Path],
    boxes: Sequence[Box] = (),
    crops: int = 1,
    crop: int = 96,
    errors: bool = False,
) -> None:
    """Draws input | each method | target for some scenes, with crops enlarged below.

    Args:
        found: from `kpac.evaluation.results.find_results`, for one data set and one protocol.
        scenes: names of scenes; by default the first scene.
        paths: .png, .pdf or .svg files to write.
        boxes: crops to enlarge; by default those where input and target differ most.
        crops: number of default crops.
        crop: height of a default crop, in pixels.
        errors: draws each image's absolute error, averaged over channels, on one scale for all images of a scene.

    Raises:
        UserError: no such scene, results that are not comparable, an output that was not kept, or a box outside of the
            image.
    """
    first = found[0][1]
    for path, results in found:
        if _scenes_of(results) != _scenes_of(first):
            ours, theirs = (f"{data_title(item)} ({short_path(item['data'])})" for item in (results, first))
            raise UserError(f"{path}: scored on {ours}, but {found[0][0]} on {theirs}; expected one data set")
        if protocol_of(results).settings() != protocol_of(first).settings():
            raise UserError(
                f"{path}: scored under protocol '{results['protocol']}', but {found[0][0]} under "
                f"'{first['protocol']}'; expected one protocol"
            )
    protocol = protocol_of(first)
    by_order = first.get("pair_by_order", False)
    files = find_scenes(
        Path(first["data"]), first["split"], layout=first["layout"], targets=False, pair_by_order=by_order
    )
    by_name = {scene.name: scene for scene in files}
    rows = []
    for name in scenes or [files[0].name]:
        if name not in by_name:
            raise UserError(f"{first['data']}: no scene is called '{name}'{nearest(name, by_name)}")
        panels = _panels(found, by_name[name], protocol)
        placed = [_inside(box, panels[0].image, name) for box in boxes] or largest_differences(
            panels[0].image, panels[-1].image, crop, crops
        )
        rows.append(SheetRow(_error_panels(panels) if errors else panels, placed))
    what = ": absolute error, black to bright" if errors else ""
    sheet(rows, paths, f"{data_title(first)}, protocol {first['protocol']}{what}")


def parse_box(text: str) -> Box:
    """Parses a box, "TOP,LEFT,HEIGHT,WIDTH" in pixels; without WIDTH, the width follows from the height.

    Raises:
        ValueError: the text has another form.
    """
    numbers = [int(part) for part in text.split(",")]
    if len(numbers) == 3:
        numbers.append(round(numbers[2] / ZOOM_RATIO))
    top, left, height, width = numbers
    if min(top, left) < 0 or min(height, width) < 1:
        raise ValueError("expected a place of 0 or more, and a size above 0")
    return top, left, height, width


def _panels(found: ResultFiles, scene: SceneFiles, protocol: Protocol) -> list[Panel]:
    """Panels of the input, every method's output and the target, at the protocol's size."""
    read = SceneDataset([scene], protocol.bit_depth)[0]
    record = _record(*found[0], scene.name)
    panels = [Panel("input", note(record["input"]), to_array(protocol.prepare(read.views[:3])))]
    for path, results in found:
        image = _output(path, results, scene)
        if image.shape[:2] == read.views.shape[-2:]:
            image = to_array(protocol.prepare(torch.from_numpy(image).permute(2, 0, 1)))
        if image.shape != panels[0].image.shape:
            raise UserError(f"{path}: the kept output of scene '{scene.name}' is of another size; evaluate again")
        panels.append(Panel(results["label"], note(_record(path, results, scene.name)), image))
    if read.target is not None:
        panels.append(Panel("target", scene.name, to_array(protocol.prepare(read.target))))
    return panels


def _error_panels(panels: Sequence[Panel]) -> list[Panel]:
    if panels[-1].title != "target":
        raise UserError("error maps need targets; this data set has none")
    target = panels[-1].image
    errors = [np.abs(panel.image - target).mean(axis=2) for panel in panels[:-1]]
    top = float(np.percentile(errors[0], WHITE_AT)) or 1.0
    colored = [colormaps[COLORS](np.clip(error / top, 0, 1))[..., :3] for error in errors]
    maps = [
        Panel(panel.title, f"MAE {error.mean():.4f}", image)
        for panel, error, image in zip(panels, errors, colored, strict=False)
    ]
    return [*maps, Panel("target", f"{panels[-1].note}; brightest: {top:.3f} and more", target)]


def _scenes_of(results: dict[str, Any]) -> tuple[Path, str]:
    return Path(results["data"]).resolve(), results["split"]


def _record(path: Path, results: dict[str, Any], name: str) -> dict[str, Any]:
    for record in results["images"]:
        if record["name"] == name:
            return record
    data = short_path(results["data"])
    raise UserError(f"{path}: scene '{name}' was not scored; evaluate {data} again")


def _output(path: Path, results: dict[str, Any], scene: SceneFiles) -> np.ndarray:
    """Reads a method's output: the user's own file, or the image that the evaluation kept."""
    kept = KeptOutputs(path, results).find(scene, scene.name)
    if kept is None:
        raise UserError(f"{path}: the output of scene '{scene.name}' was not kept", "save_images")
    return read_output(kept)


def _inside(box: Box, image: np.ndarray, name: str) -> Box:
    top, left, height, width = box
    rows, columns = image.shape[:2]
    if top + height > rows or left + width > columns:
        raise UserError(
            f"box {','.join(map(str, box))} exceeds scene '{name}', which is {columns}x{rows} pixels; "
            "expected TOP,LEFT,HEIGHT,WIDTH inside"
        )
    return box
