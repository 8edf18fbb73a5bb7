"""Charts can be read: no label over another or cut off, and nothing that has a place is left out."""

import itertools
import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kpac.reporting import charts, figures
from kpac.reporting.charts import CurvePoint, curve, scatter
from kpac.reporting.comparison import Column, Row, Table
from kpac.reporting.figures import Panel, sheet

PSNR, MACS = Column("DPDD test", "psnr"), Column("", "macs")
NAMES = ["kpac_2level", "kpac_2level_seed1", "a_network_with_a_name_that_is_longer_than_a_column_of_a_paper_is_wide"]


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that are saved from now on, laid out."""
    found: list[Figure] = []

    def keep(figure: Figure, _) -> None:
        FigureCanvasAgg(figure).draw()
        found.append(figure)

    monkeypatch.setattr(charts, "save", keep)
    monkeypatch.setattr(figures, "save", keep)
    return found


def table(*rows: tuple[str, float, float | None, str | None]) -> Table:
    """Rows of label, PSNR, MACs and source."""
    return Table(
        [PSNR, MACS],
        [Row(name, {PSNR: y} | ({MACS: x} if x is not None else {}), source=source) for name, y, x, source in rows],
        [],
    )


def assert_readable(figure: Figure) -> None:
    """Every text lies within the figure, and over no other."""
    (axes,) = figure.axes
    texts = [text for text in [axes.xaxis.label, axes.yaxis.label] if text.get_text()]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        texts += [
            label
            for label, place in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
            if low <= place <= high
        ]
        texts += [label for label in axis.get_ticklabels(minor=True) if label.get_text()]
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    boxes = [text.get_window_extent() for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        assert box.x0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1, text
        assert box.y0 >= -1, text
    for one, other in itertools.combinations(range(len(boxes)), 2):
        assert not boxes[one].overlaps(boxes[other]), (texts[one], texts[other])


@pytest.mark.parametrize(
    "costs",
    [(113e9, 118e9, 740e9), (0.00335e9, 0.00336e9, 0.00337e9), (2e9, 2e9, 9e9), (1e6, 1e9, 3e12), (0.5e9, 7e9, 19e9)],
    ids=str,
)
def test_scatter_is_readable_at_any_costs(costs, drawn):
    scatter(table(*((name, 25 + 0.01 * i, x, None) for i, (name, x) in enumerate(zip(NAMES, costs, strict=True)))), [])
    assert_readable(drawn[0])
    assert len(drawn[0].legends[0].get_texts()) == 3


def test_scatter_of_a_single_method_beside_published_ones(drawn):
    published = [("KPAC, single image", 25.24, None, "x"), ("KPAC, dual pixel", 25.82, None, "x")]
    scatter(table(("mine", 20.1, 0.00335e9, None), *published), [])
    assert_readable(drawn[0])
    lines = {line.get_label(): line for line in drawn[0].axes[0].lines}
    for name, value, *_ in published:
        assert set(lines[f"{name} (published)"].get_ydata()) == {value}
    low, high = drawn[0].axes[0].get_ylim()
    assert low < 20.1 < 25.82 < high


def test_many_methods_have_a_color_and_marker_each(drawn):
    scatter(table(*((f"method {i}", 25 + 0.1 * i, 1e9 * (i + 1), None) for i in range(30))), [])
    looks = {(line.get_color(), line.get_marker()) for line in drawn[0].axes[0].lines}
    assert len(looks) == 30


def test_infinite_psnr_is_seen(drawn):
    scatter(table(("equal", math.inf, 2e9, None), ("mine", 25.0, 2.1e9, None)), [])
    lines = {line.get_label(): line for line in drawn[0].axes[0].lines}
    (height,) = lines["equal (infinite)"].get_ydata()
    assert (height, lines["equal (infinite)"].get_transform()) == (1, drawn[0].axes[0].get_xaxis_transform())
    scatter(table(("equal", math.inf, 2e9, None)), [])
    assert_readable(drawn[1])


@pytest.mark.parametrize("ordered", [True, False])
def test_curve_has_bars_where_there_is_a_deviation_and_a_line_where_there_is_an_order(ordered, drawn):
    labels = ["8", "16", "32"] if ordered else ["scale + shape", "a kernel for each dilation", "none"]
    points = [CurvePoint(label, 25 + i, 0.1 if i == 1 else None) for i, label in enumerate(labels)]
    curve(points, [], "attention", ordered=ordered)
    (axes,) = drawn[0].axes
    (container,) = axes.containers
    assert len(container.lines[2][0].get_segments()) == 1
    assert (axes.lines[0].get_linestyle() == "-") is ordered
    assert_readable(drawn[0])


def test_curve_of_single_seeds_has_no_bars(drawn):
    curve([CurvePoint("0", 25.0, None), CurvePoint("1", 25.5, None)], [], "blocks")
    assert drawn[0].axes[0].containers == []


@pytest.mark.parametrize("count", [1, 3, 7, 9])
def test_titles_of_a_sheet_stay_in_their_columns(count, drawn):
    image = np.zeros((40, 60, 3))
    titles = list(itertools.islice(itertools.cycle(["input", *NAMES, "Restormer, single image"]), count))
    sheet([figures.SheetRow([Panel(title, "26.35 dB, SSIM 0.812", image) for title in titles], [])], [], "DPDD test")
    figure = drawn[0]
    for axes in figure.axes:
        for text in (axes.title, *axes.texts):
            box = text.get_window_extent()
            assert box.x0 >= axes.bbox.x0 - 4, text
            assert box.x1 <= axes.bbox.x1 + 4, text
            assert box.y1 <= figure.bbox.y1 + 1, text
