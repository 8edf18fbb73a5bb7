"""Inspects weights on photographs: writes a folder of sheets, and their numbers as inspect.json."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from kpac.data.layouts import SceneFiles, find_scenes
from kpac.data.synthesis.photos import skimage_photos
from kpac.environment import choose_device
from kpac.errors import UserError
from kpac.files import write_json
from kpac.images import read_pixels, to_float
from kpac.inspect.attention import BlockAttention, attention_of, kpac_blocks, rank_correlation
from kpac.inspect.kernels import kernel_patterns
from kpac.inspect.receptive_field import effective_receptive_field
from kpac.inspect.sheets import SHARES, attention_sheet, model_sheet, save_sheet
from kpac.models.health import DEAD_BELOW, HEALTH_CROP, BlockHealth, block_health, center_crop
from kpac.models.interface import ImageNetwork
from kpac.models.weights import load_model, weights_file
from kpac.restore.photos import other_view
from kpac.text import markdown_table

CORRELATIONS = {"rank_correlation": "dilation", "rank_correlation_of_weight": "weight"}  # keys and columns
HEALTH = {"contribution": ".3f", "mean_weight": ".2f", "saturated": ".0%"}  # printed values and their formats
VIEWS = {"center": "image", "left": "left", "right": "right"}  # view -> argument of `attention_of`


@dataclass(frozen=True)
class Subject:
    """A photograph to inspect."""

    name: str  # name of its sheet
    views: dict[str, np.ndarray]  # view -> H x W x 3 in [0, 1]
    blur_radius: np.ndarray | None = None  # H x W in pixels, with signs, if known
    reduced_from: tuple[int, int] | None = None  # height and width of the file, if the photograph was reduced


def inspect_weights(
    weights: Path,
    output: Path,
    photos: Sequence[Path] = (),
    data: Path | None = None,
    split: str = "test",
    longest_side: int = 1024,
    device: str = "auto",
    other_views: Mapping[str, Path] | None = None,
    layout: str = "auto",
    pair_by_order: bool = False,
) -> dict[str, Any]:
    """Draws one sheet per photograph, and one of the model.

    Args:
        weights: see `kpac.models.weights.load_model`.
        output: folder for NAME.png and NAME.pdf of each photograph, model.png, model.pdf and inspect.json.
        photos: image files with the center views.
        data: a data set whose scenes are inspected instead of photographs; one from `kpac data synthesize` includes
            the true blur. Without photographs and data, photographs of scikit-image are used.
        split: split of the data set.
        longest_side: longer photographs are reduced to this many pixels, and their sheets say so.
        device: see `kpac.environment.choose_device`.
        other_views: for a dual-pixel network, "left" and "right": files for a single photograph, or folders with files
            of the same names as the photographs.
        layout, pair_by_order: layout and pairing of the data set; see `kpac.data.layouts.find_scenes`.

    Returns:
        The content of inspect.json. For each photograph and block: its health (`kpac.models.health.BlockHealth`), the
        range of the expected dilation, the shape attention, and, if the true blur is known, the rank correlations of
        the expected dilation and of the mean weight with it (None if one is constant). Also the receptive field.

    Raises:
        UserError: a file cannot be read, or photographs are given for a network without KPAC blocks. Only the
            receptive field of such a network can be drawn.
    """
    _check_names(photos)
    model = load_model(weights).to(choose_device(device))
    blocks = kpac_blocks(model)
    if not blocks and not photos and not data:
        return _inspect_receptive_field(model, weights, output)
    others = other_views or {}
    if not data and model.views != ("center",) and not others:
        raise UserError(f"network '{model.config['name']}' reads dual-pixel views", "dual_views")
    files = []
    for path in photos:
        views = {name: other_view(path, place, len(photos)) for name, place in others.items()}
        files.append({"center": path, **views})
    label = f"{model.config['name']}, {weights}"

    scenes = find_scenes(data, split, model.views, layout, False, pair_by_order) if data else []
    images, shapes = [], []
    for subject in tqdm(_subjects(files, scenes, longest_side), desc="inspecting", disable=None):
        try:
            restored, attention = attention_of(model, **{VIEWS[name]: view for name, view in subject.views.items()})
        except UserError as error:
            raise error.within(subject.name) from None
        caption = f"{subject.name} ({_size_note(subject)}), {label}"
        sheet = attention_sheet(subject.views["center"], restored, attention, caption, subject.blur_radius)
        save_sheet(sheet, output / subject.name)
        numbers = [_numbers(block, subject.blur_radius) for block in attention]
        for block_numbers, health in zip(numbers, _health(model, subject), strict=True):
            block_numbers.update(health.numbers())
        size = {"size": restored.shape[:2], "reduced_from": subject.reduced_from}
        images.append({"name": subject.name, **size, "blocks": numbers})
        shapes.append([block.shape for block in attention if block.shape is not None])

    field = effective_receptive_field(model)
    banks = {}
    for number, block in enumerate(blocks, 1):
        for branch, dilation in enumerate(block.dilations[: len(block.kernels)]):
            title = "shared kernel" if len(block.kernels) == 1 else f"kernel of dilation {dilation}"
            banks[f"block {number}, {title}"] = kernel_patterns(block, branch)
    stacked = [np.stack(vectors) for vectors in zip(*shapes, strict=True)]
    save_sheet(model_sheet(banks, stacked, field, label), output / "model")
    radius = {f"{share:.0%}": field.radius(share) for share in SHARES}
    result = {
        "weights": str(weights_file(weights)),
        "receptive_field": {"reach": field.reach, "radius": radius},
        "images": images,
    }
    write_json(output / "inspect.json", result)
    return result


def _inspect_receptive_field(model: ImageNetwork, weights: Path, output: Path) -> dict[str, Any]:
    """Draws the receptive field alone, for a network without KPAC blocks."""
    field = effective_receptive_field(model)
    save_sheet(model_sheet({}, [], field, f"{model.config['name']}, {weights}"), output / "model")
    radius = {f"{share:.0%}": field.radius(share) for share in SHARES}
    facts = {"reach": field.reach, "radius": radius}
    result = {"weights": str(weights_file(weights)), "receptive_field": facts, "images": []}
    write_json(output / "inspect.json", result)
    return result


def correlation_table(result: dict[str, Any]) -> str:
    """Table of rank correlations, image by block, from the result of `inspect_weights`; empty without true blur."""
    rows = [
        [image["name"], *(_correlation(block[key]) for block in image["blocks"] for key in CORRELATIONS)]
        for image in result["images"]
        if all(key in block for block in image["blocks"] for key in CORRELATIONS)
    ]
    if not rows:
        return ""
    blocks = range(1, len(result["images"][0]["blocks"]) + 1)
    columns = [f"block {number}: {name}" for number in blocks for name in CORRELATIONS.values()]
    return markdown_table(["image", *columns], rows)


def health_table(result: dict[str, Any]) -> str:
    """Table of the blocks' health, as means over the images, from the result of `inspect_weights`."""
    rows = []
    for number in range(len(result["images"][0]["blocks"])):
        found = [image["blocks"][number] for image in result["images"]]
        means = {name: np.mean([block[name] for block in found]) for name in HEALTH if name in found[0]}
        cells = [f"{means[name]:{form}}" if name in means else "" for name, form in HEALTH.items()]
        nothing = all(block["contribution"] < DEAD_BELOW for block in found)
        rows.append([f"block {number + 1}", *cells, "contributes nothing" if nothing else ""])
    return markdown_table(["", "contribution", "mean weight", "saturated", "note"], rows)


def _health(model: ImageNetwork, subject: Subject) -> list[BlockHealth]:
    views = np.concatenate([subject.views[name] for name in model.views], axis=-1)
    tensor = torch.from_numpy(np.ascontiguousarray(views.transpose(2, 0, 1)))[None]
    return block_health(model, center_crop(tensor, HEALTH_CROP).to(next(model.parameters()).device))


def _numbers(block: BlockAttention, blur_radius: np.ndarray | None) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    if block.scale is not None:
        expected = block.expected_dilation
        numbers["expected_dilation"] = [float(expected.min()), float(expected.max())]
        numbers["mean_weights"] = block.scale.mean(axis=(1, 2)).tolist()
        if blur_radius is not None:
            for key, values in zip(CORRELATIONS, (expected, block.mean_weight), strict=True):
                correlation = rank_correlation(values, blur_radius)
                numbers[key] = None if np.isnan(correlation) else correlation
    if block.shape is not None:
        numbers["shape_attention"] = block.shape.tolist()
    return numbers


def _size_note(subject: Subject) -> str:
    height, width = subject.views["center"].shape[:2]
    note = f"{width}x{height}"
    return f"{note}, reduced from {subject.reduced_from[1]}x{subject.reduced_from[0]}" if subject.reduced_from else note


def _check_names(photos: Sequence[Path]) -> None:
    taken = {"model": "the model's sheet"}
    for path in photos:
        if path.stem in taken:
            raise UserError(f"{taken[path.stem]} and {path}: both sheets would be {path.stem}.png; rename one")
        taken[path.stem] = str(path)


def _correlation(value: float | None) -> str:
    return "constant" if value is None else f"{value:+.2f}"


def _subjects(
    photos: Sequence[Mapping[str, Path]], scenes: Sequence[SceneFiles], longest_side: int
) -> Iterator[Subject]:
    for scene in scenes:
        center = scene.views["center"]
        blur_file = center.parents[1] / "blur" / f"{center.stem}.tiff"
        blur = cv2.imread(str(blur_file), cv2.IMREAD_UNCHANGED) if blur_file.is_file() else None
        pixels = {name: to_float(read_pixels(path)) for name, path in scene.views.items()}
        yield _reduced(Subject(scene.name, pixels, blur), longest_side)
    if scenes:
        return
    files = photos or [{"center": photo.path} for photo in skimage_photos() if photo.split == "test"]
    for paths in files:
        pixels = {name: to_float(read_pixels(path)) for name, path in paths.items()}
        yield _reduced(Subject(paths["center"].stem, pixels), longest_side)


def _reduced(subject: Subject, longest_side: int) -> Subject:
    height, width = subject.views["center"].shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return subject
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    views = {name: cv2.resize(view, size, interpolation=cv2.INTER_AREA) for name, view in subject.views.items()}
    blur = subject.blur_radius
    blur = None if blur is None else cv2.resize(blur, size, interpolation=cv2.INTER_AREA) * scale
    return Subject(subject.name, views, blur, reduced_from=(height, width))
