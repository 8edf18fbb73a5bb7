"""Charts for papers: quality against cost, and a quantity along an axis of an ablation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kpac.config import nearest
from kpac.errors import UserError
from kpac.evaluation.comparison import Column, Table
from kpac.evaluation.figures import PAPER, save
from kpac.evaluation.quantities import COSTS, METRICS, QUANTITIES, SCALES

SIZE = (3.4, 2.5)  # inches: one column of a paper
OURS, THEIRS, GRID = "#0b6fb8", "#d1495b", "#dddddd"


@dataclass(frozen=True)
class CurvePoint:
    """One place of a curve.

    Args:
        label: what was varied, such as "2".
        mean: over seeds.
        deviation: sample standard deviation over seeds; None for one seed.
    """

    label: str
    mean: float
    deviation: float | None


def scatter(table: Table, paths: Sequence[Path], metric: str = "psnr", cost: str = "macs") -> None:
    """Draws each method's quality against its cost, on a logarithmic axis where costs differ much.

    Args:
        table: from `kpac.evaluation.comparison.compare`; rows without that cost are left out.
        paths: .png, .pdf or .svg files to write.
        metric, cost: names in `kpac.evaluation.quantities`.

    Raises:
        UserError: no method has both, or protocols are mixed.
    """
    for name, known in ((metric, METRICS), (cost, COSTS)):
        if name not in known:
            raise UserError(f"no quantity is called '{name}'{nearest(name, known)}")
    if table.mixed:
        raise UserError("protocols are mixed, so the methods do not compare; expected results under one protocol")
    quality = next((column for column in table.columns if column.quantity == metric), None)
    price = Column("", cost)
    rows = [row for row in table.rows if quality in row.values and price in row.values]
    if quality is None or not rows:
        raise UserError(f"no method has both {metric} and {cost}; expected results of networks, from kpac evaluate")
    figure, axes = _axes()
    prices = [row.values[price] * SCALES.get(cost, 1) for row in rows]
    if max(prices) > 5 * min(prices) > 0:
        axes.set_xscale("log")
    for row, x in zip(rows, prices, strict=True):
        y = row.values[quality]
        axes.plot(x, y, "o", color=THEIRS if row.source else OURS, markersize=5)
        axes.annotate(row.label, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7)
    axes.margins(x=0.25, y=0.2)
    axes.set_xlabel(QUANTITIES[cost].title)
    axes.set_ylabel(f"{QUANTITIES[metric].title}, {quality.over}")
    _write(figure, paths)


def curve(points: Sequence[CurvePoint], paths: Sequence[Path], axis: str, metric: str = "psnr") -> None:
    """Draws means, with one deviation to each side, in the order of an ablation.

    Args:
        points: in that order.
        paths: .png, .pdf or .svg files to write.
        axis: what was varied.
        metric: a name in `kpac.evaluation.quantities`.
    """
    figure, axes = _axes()
    places, means = range(len(points)), [point.mean for point in points]
    axes.errorbar(
        places,
        means,
        yerr=[point.deviation or 0 for point in points],
        fmt="o-",
        color=OURS,
        markersize=4,
        linewidth=1.2,
        capsize=3,
    )
    long = max(len(point.label) for point in points) > 6
    axes.set_xticks(
        places, [point.label for point in points], rotation=20 if long else 0, ha="right" if long else "center"
    )
    axes.margins(x=0.1, y=0.15)
    axes.set_xlabel(axis)
    axes.set_ylabel(QUANTITIES[metric].title)
    _write(figure, paths)


def _axes():
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(PAPER):
        figure = Figure(figsize=SIZE, dpi=200, layout="constrained", facecolor="white")
        axes = figure.add_subplot()
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _write(figure, paths: Sequence[Path]) -> None:
    from matplotlib import rc_context

    with rc_context(PAPER):
        save(figure, paths)
