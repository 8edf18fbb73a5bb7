"""Sheets of `kpac inspect`: one per photograph and one per model, each as PNG and PDF."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from kpac.files import atomic_write
from kpac.inspect.attention import BlockAttention
from kpac.inspect.kernels import KernelPatterns
from kpac.inspect.receptive_field import ReceptiveField

SHARES = (0.5, 0.9, 0.99)  # shares of the influence, drawn as squares around the pixel
KERNEL_COLUMNS = 16


def attention_sheet(
    image: np.ndarray,
    restored: np.ndarray,
    blocks: Sequence[BlockAttention],
    caption: str,
    blur_radius: np.ndarray | None = None,
) -> Figure:
    """Draws input and output, and for each block scale-attention maps, expected dilation and shape attention.

    Args:
        image, restored: H x W x 3 in [0, 1].
        blocks: from `kpac.inspect.attention.attention_of`.
        caption: text at the top, which should name the model and the photograph.
        blur_radius: H x W in pixels, with signs, if known.
    """
    columns = max(len(block.dilations) for block in blocks) + 1
    panel = 2.4  # inches
    tall = panel * min(max(image.shape[0] / image.shape[1], 1 / 4), 4)  # limited, so that the titles fit
    heights = [1.6 * tall]
    for block in blocks:
        heights += [tall + 0.25] * (block.scale is not None) + [0.9] * (block.shape is not None)
    figure = Figure(figsize=(panel * columns, sum(heights) + 0.5 * len(heights)), dpi=100, layout="constrained")
    figure.suptitle(caption, fontsize=10)
    rows = iter(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])

    top = next(rows).subplots(1, 2 + (blur_radius is not None))
    _show(top[0], image, "input")
    _show(top[1], restored, "output")
    if blur_radius is not None:
        _map(top[2], np.abs(blur_radius), "true blur radius, pixels", "magma")

    for number, block in enumerate(blocks, 1):
        if block.scale is not None:
            axes = next(rows).subplots(1, columns)
            for dilation, weights, place in zip(block.dilations, block.scale, axes, strict=False):
                title = f"block {number}, dilation {dilation}: {weights.min():.2f} to {weights.max():.2f}"
                _show(place, weights, title, cmap="gray", vmin=0, vmax=1)
            for place in axes[len(block.dilations) : -1]:
                place.set_axis_off()
            _map(axes[-1], block.expected_dilation, f"block {number}, expected dilation", "magma")
        if block.shape is not None:
            _bars(next(rows).subplots(), block.shape[None], f"block {number}, shape attention, one bar per filter")
    return figure


def model_sheet(
    kernels: Mapping[str, KernelPatterns], shapes: Sequence[np.ndarray], field: ReceptiveField, caption: str
) -> Figure:
    """Draws the kernels, shape attention over several photographs, and the effective receptive field.

    Args:
        kernels: title -> patterns, for every kernel bank.
        shapes: for every block with shape attention, photographs x filters.
        field: receptive field of the whole network.
        caption: text at the top, which should name the model.
    """
    rows = [-(-len(bank.filters) // KERNEL_COLUMNS) for bank in kernels.values()]
    heights = [0.95 * count + 0.3 for count in rows] + [1.2] * len(shapes) + [4.6]
    figure = Figure(figsize=(13, sum(heights) + 0.6), dpi=100, layout="constrained")
    figure.suptitle(caption, fontsize=10)
    parts = iter(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    for (title, bank), count in zip(kernels.items(), rows, strict=True):
        _mosaic(next(parts).subplots(), bank, count, title)
    for number, weights in enumerate(shapes, 1):
        over = f"mean and range over {len(weights)} photographs" if len(weights) > 1 else "of one photograph"
        _bars(next(parts).subplots(), weights, f"block {number}, shape attention, one bar per filter, {over}")
    _receptive_field(next(parts), field)
    return figure


def save_sheet(figure: Figure, stem: Path) -> None:
    """Writes STEM.png and STEM.pdf, atomically.

    Raises:
        UserError: the folder cannot be written.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # keeps the layout, computed once, for both files
    for suffix in (".png", ".pdf"):
        with atomic_write(stem.with_name(stem.name + suffix)) as partial:
            figure.savefig(partial)


def _mosaic(axes: Axes, bank: KernelPatterns, rows: int, title: str) -> None:
    """Draws all patterns of a bank as one image; a hundred small images would take minutes."""
    count, size, _ = bank.patterns.shape
    across, down = size + 1, size + 2  # a gap between columns, a gap and a label between rows
    canvas = np.full((rows * down, KERNEL_COLUMNS * across), np.nan)
    for position in range(count):
        top, left = position // KERNEL_COLUMNS * down + 1, position % KERNEL_COLUMNS * across
        canvas[top : top + size, left : left + size] = bank.patterns[position]
        label = f"{bank.filters[position]}: {bank.share[position]:.0%}"
        axes.text(left + (size - 1) / 2, top - 0.6, label, fontsize=6, ha="center", va="bottom")
    limit = np.abs(bank.patterns).max()
    axes.imshow(canvas, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_title(f"{title}: each filter's strongest pattern, and its share of the filter's energy", fontsize=8)
    axes.set_axis_off()


def _receptive_field(part: SubFigure, field: ReceptiveField) -> None:
    left, right = part.subplots(1, 2)
    side = field.influence.shape[0]
    middle = side // 2
    floor = field.influence[field.influence > 0].min() if field.influence.any() else 1
    _map(
        left,
        np.log10(np.maximum(field.influence, floor)),
        f"influence of each of {side}x{side} pixels on the one in the middle, log10",
        "magma",
    )
    for share, color in zip(SHARES, ("white", "cyan", "lime"), strict=True):
        radius = field.radius(share)
        corner = middle - radius - 0.5
        left.add_patch(_square(corner, 2 * radius + 1, color))
    shares = [
        field.influence[middle - r : middle + r + 1, middle - r : middle + r + 1].sum() for r in range(middle + 1)
    ]
    right.plot(range(middle + 1), shares, color="black")
    for share, color in zip(SHARES, ("gray", "tab:cyan", "tab:green"), strict=True):
        radius = field.radius(share)
        right.axvline(radius, color=color, linestyle="--", label=f"{share:.0%} within {radius} pixels")
    if field.reach is not None:
        right.axvline(max(field.reach), color="tab:red", label=f"layers read {max(field.reach)} pixels at most")
    right.set_xlabel("half side of a square around the pixel", fontsize=8)
    right.set_title("share of the influence within a square", fontsize=8)
    right.set_ylim(0, 1.02)
    right.tick_params(labelsize=7)
    right.legend(fontsize=7)


def _square(corner: float, side: float, color: str) -> Rectangle:
    return Rectangle((corner, corner), side, side, fill=False, edgecolor=color, linewidth=1)


def _show(axes: Axes, image: np.ndarray, title: str, **options: Any) -> None:
    axes.imshow(image, interpolation="nearest", **options)
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()


def _map(axes: Axes, values: np.ndarray, title: str, cmap: str) -> None:
    drawn = axes.imshow(values, interpolation="nearest", cmap=cmap)
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)


def _bars(axes: Axes, weights: np.ndarray, title: str) -> None:
    mean = weights.mean(axis=0)
    spread = np.stack([mean - weights.min(axis=0), weights.max(axis=0) - mean]) if len(weights) > 1 else None
    axes.bar(range(len(mean)), mean, yerr=spread, color="tab:blue", error_kw={"linewidth": 0.8})
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.7, len(mean) - 0.3)
    axes.set_title(title, fontsize=8)
    axes.tick_params(labelsize=7)
