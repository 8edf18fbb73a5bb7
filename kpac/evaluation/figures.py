"""Pictures for people: blurred, restored and sharp images side by side, with the places that matter enlarged."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage
from torch import Tensor

from kpac.evaluation.evaluator import Evaluated
from kpac.files import whole_file

TITLES = ("blurred", "restored", "sharp")
BOX_COLOR = "#ffb000"


def comparison(evaluated: Sequence[Evaluated], path: Path, caption: str, crop: int = 96) -> None:
    """Draws blurred | restored | sharp for each scene, and below them an enlarged crop.

    The crop lies where the blurred image differs most from the sharp one: where there is something to restore, whether
    or not the network did.

    Args:
        evaluated: one or more scenes.
        path: a .png or .pdf file.
        caption: printed below; say the model and the protocol.
        crop: side of the crop, in pixels.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    width = 11.0  # inches
    panel = width / 3
    heights = []
    for item in evaluated:
        rows, columns = item.output.shape[-2:]
        heights += [panel * rows / columns, panel * 0.62]
    header, footer, gap = 0.35, 0.35, 0.06
    total = header + footer + sum(heights) + gap * len(heights)
    figure = Figure(figsize=(width, total), dpi=150, facecolor="white")
    top = total - header
    for number, item in enumerate(evaluated):
        images = [to_array(image) for image in (item.input, item.output, item.scene.target)]
        notes = [_note(item.input_scores), _note(item.scores), item.scene.name]
        box_top, box_left, box_height, box_width = _widest_difference(images[0], images[2], crop, crop / 0.62)
        for row, height in enumerate(heights[2 * number : 2 * number + 2]):
            top -= height
            for column, image in enumerate(images):
                left = column / 3 + 0.002
                axes = figure.add_axes((left, top / total, 1 / 3 - 0.004, height / total))
                axes.set_axis_off()
                if row == 0:
                    axes.imshow(image, interpolation="lanczos", aspect="auto")
                    axes.add_patch(
                        Rectangle(
                            (box_left, box_top), box_width, box_height, fill=False, color=BOX_COLOR, linewidth=1.2
                        )
                    )
                    _label(axes, notes[column])
                    if number == 0:
                        axes.set_title(TITLES[column], fontsize=11)
                else:
                    zoom = image[box_top : box_top + box_height, box_left : box_left + box_width]
                    axes.imshow(zoom, interpolation="nearest", aspect="auto")
            top -= gap
    figure.text(0.5, 0.12 / total, caption, ha="center", va="center", fontsize=8, color="#444444")
    with whole_file(path) as partial:
        figure.savefig(partial)


def to_array(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> H x W x 3."""
    return image.permute(1, 2, 0).clamp(0, 1).numpy()


def _widest_difference(
    blurred: np.ndarray, sharp: np.ndarray, height: float, width: float
) -> tuple[int, int, int, int]:
    """Top, left, height and width of the box with the largest mean squared difference."""
    rows, columns = sharp.shape[:2]
    box_height, box_width = min(int(height), rows), min(int(width), columns)
    error = ndimage.uniform_filter(np.square(blurred - sharp).mean(axis=2), (box_height, box_width))
    half_height, half_width = box_height // 2, box_width // 2
    inner = error[
        half_height : rows - (box_height - half_height) + 1, half_width : columns - (box_width - half_width) + 1
    ]
    top, left = np.unravel_index(inner.argmax(), inner.shape)
    return int(top), int(left), box_height, box_width


def _note(scores: dict[str, float]) -> str:
    return f"{scores['psnr']:.2f} dB, SSIM {scores['ssim']:.3f}"


def _label(axes, text: str) -> None:
    box = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 2}
    axes.text(0.015, 0.03, text, transform=axes.transAxes, color="white", fontsize=8, bbox=box, va="bottom")
