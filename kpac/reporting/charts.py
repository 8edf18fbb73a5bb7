"""Charts for papers: quality against cost, and a metric along the axis of an ablation."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kpac.config import nearest
from kpac.errors import UserError
from kpac.reporting.comparison import Column, Table
from kpac.reporting.figures import PAPER, save
from kpac.reporting.units import COSTS, METRICS, QUANTITIES, SCALES

SIZE = (3.4, 2.5)  # inches: one column of a paper
OURS, THEIRS, GRID = "#0b6fb8", "#777777", "#dddddd"
COLORS = (OURS, "#d1495b", "#2e933c", "#e09f3e", "#7b4fa3", "#0f8b8d", "#333333")
MARKERS = "osD^vP*"  # one per color, for color-blind readers and gray prints
DASHES = ("--", ":", "-.")
LINE = 0.17  # height of a line of a legend, in inches
LETTERS = 52  # letters that fit in a line of a legend


@dataclass(frozen=True)
class CurvePoint:
    """One point of a curve."""

    label: str  # the setting of the varied quantity, such as "2"
    mean: float  # mean over seeds
    deviation: float | None  # sample standard deviation over seeds; None for one seed


def scatter(table: Table, paths: Sequence[Path], metric: str = "psnr", cost: str = "macs") -> None:
    """Draws each method's quality against its cost; the cost axis is logarithmic if costs differ much.

    Published methods of unknown cost are drawn as dashed lines. An infinite value is an arrow at the upper end.

    Args:
        table: from `kpac.reporting.comparison.compare`; our own rows without that cost are left out.
        paths: .png, .pdf or .svg files to write.
        metric, cost: names in `kpac.reporting.units`.

    Raises:
        UserError: no method has both values, or protocols are mixed.
    """
    for name, known in ((metric, METRICS), (cost, COSTS)):
        if name not in known:
            raise UserError(f"no quantity is called '{name}'{nearest(name, known)}")
    if table.mixed:
        raise UserError("methods under different protocols are not comparable; expected results under one protocol")
    quality = next((column for column in table.columns if column.quantity == metric), None)
    price = Column("", cost)
    rows = [row for row in table.rows if quality in row.values and price in row.values]
    published = [row for row in table.rows if quality in row.values and row.source]
    if quality is None or not rows:
        raise UserError(f"no method has both {metric} and {cost}; expected results of networks, from kpac evaluate")
    labels = ["\n".join(textwrap.wrap(row.label, LETTERS)) or " " for row in rows]
    labels += ["\n".join(textwrap.wrap(f"{row.label} (published)", LETTERS)) for row in published]
    figure, axes = _axes(SIZE[1] + LINE * sum(label.count("\n") + 1 for label in labels))
    for number, (label, row) in enumerate(zip(labels, rows, strict=False)):
        style = {"color": COLORS[number % len(COLORS)], "linestyle": "none", "markersize": 5}
        style |= {"fillstyle": "none", "markeredgewidth": 1.3}  # hollow, so that equal points do not hide each other
        x, y = row.values[price] * SCALES.get(cost, 1), row.values[quality]
        if math.isinf(y):
            arrow = {"marker": "$\\uparrow$", "transform": axes.get_xaxis_transform(), "clip_on": False}
            axes.plot(x, 1, label=f"{label} (infinite)", **style | arrow | {"markersize": 9})
        else:
            marker = MARKERS[(number + number // len(COLORS)) % len(MARKERS)]  # other pairs once the colors repeat
            axes.plot(x, y, marker, label=label, **style)
    for number, (label, row) in enumerate(zip(labels[len(rows) :], published, strict=True)):
        dashes = DASHES[number % len(DASHES)]
        axes.axhline(row.values[quality], color=THEIRS, linestyle=dashes, linewidth=1, zorder=1, label=label)
    _scale_costs(axes, [row.values[price] * SCALES.get(cost, 1) for row in rows])
    if all(math.isinf(row.values[quality]) for row in [*rows, *published]):
        axes.set_yticks([])
    else:
        axes.yaxis.set_major_locator(_ticks(8))
    axes.margins(y=0.15)
    axes.set_xlabel(QUANTITIES[cost].title)
    axes.set_ylabel(f"{QUANTITIES[metric].title}, {quality.over}")
    figure.legend(loc="outside lower center", fontsize=7, frameon=False, borderaxespad=0.2)
    _write(figure, paths)


def curve(
    points: Sequence[CurvePoint], paths: Sequence[Path], axis: str, metric: str = "psnr", ordered: bool = True
) -> None:
    """Draws the means of an ablation, with bars of one standard deviation.

    Args:
        points: in the order of the ablation.
        paths: .png, .pdf or .svg files to write.
        axis: title of the axis; "" if the points' labels name the varied quantity.
        metric: a name in `kpac.reporting.units`.
        ordered: True joins the points by a line; False draws one row per point, for settings without an order.
    """
    places, labels = list(range(len(points))), [point.label for point in points]
    figure, axes = _axes(SIZE[1] if ordered else 0.7 + 0.26 * len(points))
    spread = [index for index in places if points[index].deviation is not None]
    deviations = [points[index].deviation for index in spread]
    bars = {"fmt": "none", "color": OURS, "linewidth": 1.2, "capsize": 3}
    style = {"color": OURS, "marker": "o", "markersize": 4, "linewidth": 1.2}
    if ordered:
        axes.plot(places, [point.mean for point in points], **style)
        if spread:
            axes.errorbar(spread, [points[index].mean for index in spread], yerr=deviations, **bars)
        long = max(map(len, labels)) > 6
        axes.set_xticks(places, labels, rotation=20 if long else 0, ha="right" if long else "center")
        axes.margins(x=0.1, y=0.15)
        axes.yaxis.set_major_locator(_ticks(8))
        axes.set_xlabel(axis)
        axes.set_ylabel(QUANTITIES[metric].title)
    else:
        axes.plot([point.mean for point in points], places, **style | {"linestyle": "none"})
        if spread:
            axes.errorbar([points[index].mean for index in spread], spread, xerr=deviations, **bars)
        axes.set_yticks(places, ["\n".join(textwrap.wrap(label, 32)) for label in labels])
        axes.set_ylim(len(points) - 0.5, -0.5)  # the first point at the top
        axes.margins(x=0.15)
        axes.xaxis.set_major_locator(_ticks())
        axes.set_ylabel(axis)
        axes.set_xlabel(QUANTITIES[metric].title)
    _write(figure, paths)


def _scale_costs(axes: Any, costs: Sequence[float]) -> None:
    """Scales the x axis, with few ticks, plain numbers and no minor ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = min(costs), max(costs)
    if high > 5 * low > 0:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.5, high * 1.5)
        subs = (1.0,) if high > 1000 * low else (1.0, 3.0) if high > 30 * low else (1.0, 2.0, 5.0)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        margin = 0.25 * (high - low) or 0.5 * high or 1
        axes.set_xlim(low - margin, high + margin)
        axes.xaxis.set_major_locator(_ticks())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))


def _ticks(most: int = 5) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=most, steps=[1, 2, 5, 10])


def _axes(height: float = SIZE[1]) -> Any:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(PAPER):
        figure = Figure(figsize=(SIZE[0], height), dpi=200, layout="constrained", facecolor="white")
        axes = figure.add_subplot()
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _write(figure: Any, paths: Sequence[Path]) -> None:
    from matplotlib import rc_context

    with rc_context(PAPER):
        save(figure, paths)
