"""Figures of images side by side, with enlarged crops."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from kpac.evaluation.evaluator import Evaluated, to_array
from kpac.files import atomic_write

BOX_COLORS = ("#ffb000", "#00b4d8", "#e63994", "#7ac74f")
TITLE_SIZES, NOTE_SIZES = (11, 7), (8, 5)  # font sizes in points, largest and smallest
ZOOM_RATIO = 0.62  # height of an enlarged crop divided by its width
PAPER: Any = {
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "font.size": 8,
}  # keeps text as text, in fonts that journals accept
Box = tuple[int, int, int, int]  # top, left, height, width, in pixels


@dataclass(frozen=True)
class Panel:
    """One image of a sheet."""

    title: str  # text above the column
    note: str  # text on the image, such as its scores
    image: np.ndarray  # H x W x 3 in [0, 1]


@dataclass(frozen=True)
class SheetRow:
    """One scene of a sheet: its panels, all of one size, and the boxes to enlarge."""

    panels: Sequence[Panel]
    boxes: Sequence[Box]


def comparison(evaluated: Sequence[Evaluated], path: Path, caption: str) -> None:
    """Draws blurred | restored | sharp for each scene, and below them an enlarged crop.

    The crop lies where the blurred image differs most from the sharp one, or, without targets, from the restored one.

    Args:
        evaluated: one or more scenes.
        path: a .png or .pdf file.
        caption: text below, which should name the model and the protocol.
    """
    rows = []
    for item in evaluated:
        name, target = item.scene.name, item.scene.target
        panels = [
            Panel("blurred", note(item.input_scores), to_array(item.input)),
            Panel("restored", note(item.scores) if target is not None else name, to_array(item.output)),
            *([Panel("sharp", name, to_array(target))] if target is not None else []),
        ]
        rows.append(SheetRow(panels, largest_differences(panels[0].image, panels[-1].image)))
    sheet(rows, [path], f"{caption}; enlarged: where the blurred and the {rows[0].panels[-1].title} image differ most")


def sheet(rows: Sequence[SheetRow], paths: Sequence[Path], caption: str) -> None:
    """Draws one scene below the other, each with its enlarged boxes below it.

    Args:
        rows: scenes with the same number of panels.
        paths: .png, .pdf or .svg files to write.
        caption: text below.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    count = len(rows[0].panels)
    panel = 11.0 / max(count, 3)  # inches
    width = panel * count
    titles, title_size = _fitted([item.title for item in rows[0].panels], panel, TITLE_SIZES)
    lines = max(title.count("\n") + 1 for title in titles)
    header, footer, gap = 0.17 + lines * 1.2 * title_size / 72, 0.35, 0.06
    heights = [
        height
        for row in rows
        for height in (_image_height(row, panel), *(panel * box[2] / box[3] for box in row.boxes))
    ]
    total = header + footer + sum(heights) + gap * len(heights)
    with rc_context(PAPER):
        figure = Figure(figsize=(width, total), dpi=150, facecolor="white")
        top = total - header
        for number, row in enumerate(rows):
            for line, box in enumerate([None, *row.boxes]):
                height = _image_height(row, panel) if box is None else panel * box[2] / box[3]
                top -= height
                for column, item in enumerate(row.panels):
                    frame = (column / count + 0.002, top / total, 1 / count - 0.004, height / total)
                    axes = figure.add_axes(frame)
                    axes.set_axis_off()
                    if box is None:
                        _draw_whole(axes, item, row.boxes, panel)
                        if number == 0:
                            axes.set_title(titles[column], fontsize=title_size)
                    else:
                        _draw_zoom(axes, item.image, box, BOX_COLORS[(line - 1) % len(BOX_COLORS)])
                top -= gap
        figure.text(0.5, 0.12 / total, caption, ha="center", va="center", fontsize=8, color="#444444", wrap=True)
        save(figure, paths)


def save(figure: Any, paths: Sequence[Path]) -> None:
    """Writes a figure to each path, atomically."""
    for path in paths:
        with atomic_write(path) as partial:
            figure.savefig(partial)


def note(scores: dict[str, float]) -> str:
    """Text for a panel: PSNR and SSIM in one line."""
    return f"{scores['psnr']:.2f} dB, SSIM {scores['ssim']:.3f}" if "psnr" in scores else ""


def largest_differences(blurred: np.ndarray, sharp: np.ndarray, crop: int = 96, count: int = 1) -> list[Box]:
    """Finds the boxes with the largest mean squared difference; boxes do not overlap.

    Args:
        blurred, sharp: H x W x 3.
        crop: height of a box, in pixels; `ZOOM_RATIO` gives its width.
        count: number of boxes; fewer are returned if no more fit.
    """
    rows, columns = sharp.shape[:2]
    height, width = min(int(crop), rows), min(int(crop / ZOOM_RATIO), columns)
    error = ndimage.uniform_filter(np.square(blurred - sharp).mean(axis=2), (height, width))
    top, left = height // 2, width // 2
    inner = error[top : rows - (height - top) + 1, left : columns - (width - left) + 1].copy()
    boxes: list[Box] = []
    while len(boxes) < count and inner.max() > -np.inf:
        y, x = (int(place) for place in np.unravel_index(inner.argmax(), inner.shape))
        boxes.append((y, x, height, width))
        inner[max(y - height + 1, 0) : y + height, max(x - width + 1, 0) : x + width] = -np.inf
    return boxes


def _image_height(row: SheetRow, panel: float) -> float:
    rows, columns = row.panels[0].image.shape[:2]
    return panel * rows / columns


def _fitted(texts: Sequence[str], width: float, sizes: tuple[float, float]) -> tuple[list[str], float]:
    """Fits texts into a width in inches, with the largest font size that needs no line breaks, or breaks lines.

    Returns:
        The texts and the font size in points.
    """
    letter = 0.6 / 72  # width of an average letter, in inches per point of font size
    longest = max(map(len, texts))
    largest, smallest = sizes
    size = min(largest, max(smallest, 0.95 * width / (letter * max(longest, 1))))
    return ["\n".join(textwrap.wrap(text, max(1, int(0.95 * width / (letter * size))))) for text in texts], size


def _draw_whole(axes: Any, panel: Panel, boxes: Sequence[Box], inches: float) -> None:
    from matplotlib.patches import Rectangle

    axes.imshow(panel.image, interpolation="lanczos", aspect="auto")
    for number, (top, left, height, width) in enumerate(boxes):
        color = BOX_COLORS[number % len(BOX_COLORS)]
        axes.add_patch(Rectangle((left, top), width, height, fill=False, color=color, linewidth=1.2))
    if panel.note:
        style = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 2}
        (text,), size = _fitted([panel.note], inches, NOTE_SIZES)
        axes.text(0.015, 0.03, text, transform=axes.transAxes, color="white", fontsize=size, bbox=style, va="bottom")


def _draw_zoom(axes: Any, image: np.ndarray, box: Box, color: str) -> None:
    from matplotlib.patches import Rectangle

    top, left, height, width = box
    axes.imshow(image[top : top + height, left : left + width], interpolation="nearest", aspect="auto")
    axes.add_patch(
        Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, color=color, linewidth=2.4, clip_on=True)
    )
