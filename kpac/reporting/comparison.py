"""Puts evaluations into one table: checks that they are comparable, adds published numbers, ranks the methods."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kpac.config import nearest
from kpac.errors import UserError
from kpac.evaluation.results import protocol_of
from kpac.evaluation.statistics import LEVEL, RESAMPLES, SEED, PairedDifference, paired_difference
from kpac.files import short_path
from kpac.reporting.published import DATA_SET as PUBLISHED_SET
from kpac.reporting.published import SIZES as PUBLISHED_SIZES
from kpac.reporting.published import published_rows
from kpac.reporting.units import COSTS, METRICS, QUANTITIES

ResultFiles = Sequence[tuple[Path, dict[str, Any]]]  # results.json files and their content


@dataclass(frozen=True)
class Column:
    """One column: the values of one quantity."""

    over: str  # title above the column's head: data set and group of images; "" for costs
    quantity: str  # a name in `kpac.reporting.units`, or "difference": PSNR minus the published one


@dataclass(frozen=True)
class PairedTest:
    """Comparison of two methods on the same images in one metric."""

    label: str
    other: str  # name of the one that it is compared with
    over: str  # title of the data set
    quantity: str  # name of the metric
    difference: PairedDifference  # the method minus the other


@dataclass
class Row:
    """One row: the values of one method."""

    label: str
    values: dict[Column, float] = field(default_factory=dict)  # in the units of results.json
    protocol: str = ""  # protocol of the scores
    source: str | None = None  # source of a published row; None for our own
    deviations: dict[Column, float] = field(default_factory=dict)  # sample standard deviations, of means over seeds
    intervals: dict[Column, tuple[float, float]] = field(default_factory=dict)  # of confidence, of means over images
    printed: dict[Column, str] = field(default_factory=dict)  # of a published row, with the published digits
    ranked: bool = True  # whether its values are comparable with the other rows


@dataclass
class Table:
    """A table of methods and quantities, with its notes."""

    columns: list[Column]
    rows: list[Row]
    notes: list[str]  # lines to show below it
    mixed: bool = False  # whether our own results use several protocols; nothing is ranked then
    tests: list[PairedTest] = field(default_factory=list)  # paired comparisons of methods, to show below it

    @property
    def names_protocols(self) -> bool:
        """Whether rows use several protocols, so that each row has to name its own."""
        return self.mixed or len({row.protocol for row in self.rows if row.protocol}) > 1

    def ranks(self) -> dict[tuple[int, Column], int]:
        """Ranks by (row, column): 0 for a metric's best value, 1 for the second best. Equal printed values tie.

        Ranks comparable rows only. Columns with a single value, and tables of mixed protocols, are not ranked.
        """
        found: dict[tuple[int, Column], int] = {}
        for column in self.columns if not self.mixed else []:
            if column.quantity not in METRICS:
                continue
            quantity = METRICS[column.quantity]
            values = {
                index: round(row.values[column], quantity.digits)
                for index, row in enumerate(self.rows)
                if column in row.values and row.ranked
            }
            order = sorted(set(values.values()), reverse=quantity.better == "higher")
            if len(values) > 1:
                places = {index: order.index(value) for index, value in values.items()}
                found.update({(index, column): place for index, place in places.items() if place < 2})
        return found


def compare(
    found: ResultFiles,
    groups: bool = False,
    mix_protocols: bool = False,
    published: bool = False,
    intervals: bool = False,
    paired_with: str | None = None,
) -> Table:
    """Puts results into one table, with a row for each method.

    Args:
        found: from `kpac.evaluation.results.find_results`.
        groups: adds the means of indoor and outdoor scenes.
        mix_protocols: allows different protocols in one column; each row then names its own, and nothing is ranked.
        published: adds the rows of published.yaml, and one for the blurred input.
        intervals: adds confidence intervals to the means over images.
        paired_with: label of a method; all others are compared with it image by image.

    Raises:
        UserError: the results are not comparable, the published numbers are for another data set, or no method has
            that label.
    """
    _check(found, mix_protocols)
    mixed = mix_protocols and not all(_same_numbers(results, found[0][1]) for _, results in found)
    rows: dict[tuple[str, ...], Row] = {}
    seen: dict[tuple[str, ...], Path] = {}
    ours: list[tuple[Row, dict[str, Any]]] = []
    for path, results in found:
        identity = results["model"].get("sha256") or results["model"]["images"]
        key = (results["label"], identity, results["protocol"] if mixed else "")
        place = (*key, data_title(results))
        if place in seen:
            raise UserError(f"{path}: the same method on the same data as {seen[place]}; leave one of them out")
        seen[place] = path
        row = rows.setdefault(key, Row(results["label"], protocol=results["protocol"]))
        row.values.update(_values(results, groups))
        if intervals:
            ends = (results.get("confidence") or {}).get("interval", {})
            row.intervals.update({Column(data_title(results), name): tuple(pair) for name, pair in ends.items()})
        ours.append((row, results))
    _tell_apart(rows)
    notes = _notes(found, mixed)
    if intervals:
        notes.append(
            f"In brackets: {LEVEL:.0%} confidence interval of the mean over images (percentile bootstrap, "
            f"{RESAMPLES:,} resamples, seed {SEED})."
        )
    everything = list(rows.values())
    if published:
        theirs = _published_rows(found, groups)
        _differences(ours)
        everything = [*theirs, *_blurred_inputs(found, groups), *everything]
        notes += [f"Published: {row.label}: {row.source}." for row in theirs]
        if any(not row.ranked for row in theirs):
            notes.append("Published rows under another or an unknown protocol are not ranked.")
    tests = [] if paired_with is None else _paired_tests(ours, paired_with)
    return Table(_columns(everything), everything, notes, mixed, tests)


def data_title(results: dict[str, Any]) -> str:
    """Title of the data set of some results, for tables."""
    return results["data_set"] or f"{Path(results['data']).name} {results['split']}"


def _check(found: ResultFiles, mix_protocols: bool) -> None:
    """Refuses results that are not comparable: of different protocols, or of different images."""
    first: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path, results in found:
        other_path, other = first.setdefault(data_title(results), (path, results))
        if not _same_numbers(results, other) and not mix_protocols:
            raise UserError(
                f"{path}: scored under protocol '{results['protocol']}', but {other_path} under "
                f"'{other['protocol']}'; these scores are not comparable",
                "mix_protocols",
            )
        names, others = ({image["name"] for image in item["images"]} for item in (results, other))
        if names != others:
            raise UserError(
                f"{path}: scored on {len(names)} images, but {other_path} on {len(others)}; of these, "
                f"{len(names ^ others)} are in one list only; expected the same images"
            )
        read_alike = results["protocol_settings"]["bit_depth"] == other["protocol_settings"]["bit_depth"]
        if read_alike and results["scored"]["pixels"] != other["scored"]["pixels"]:
            raise UserError(
                f"{path}: scored on other pixels than {other_path}, under the same names ({_scored(results)}; "
                f"{_scored(other)}); these scores are not comparable, so leave one out"
            )


def _scored(results: dict[str, Any]) -> str:
    """Describes the scored images in a few words."""
    scored = results["scored"]
    sizes, depths = (" and ".join(scored[key]) for key in ("sizes", "bit_depths"))
    return f"{short_path(results['data'])}: {sizes}, {depths} bits"


def _values(results: dict[str, Any], groups: bool) -> dict[Column, float]:
    title = data_title(results)
    values = {Column(title, name): value for name, value in results["mean"].items()}
    if groups:
        for group, means in results["groups"].items():
            values.update({Column(f"{title}, {group}", name): value for name, value in means["mean"].items()})
    cost = results["cost"] or {}
    costs = {"parameters": cost.get("parameters"), "macs": cost.get("macs"), "seconds": results["seconds"]}
    return values | {Column("", name): value for name, value in costs.items() if value is not None}


def _tell_apart(rows: dict[tuple[str, ...], Row]) -> None:
    """Appends the first digits of the weights' hash to labels that several rows share."""
    for (label, identity, protocol), row in rows.items():
        if sum(other[0] == label and other[2] == protocol for other in rows) > 1:
            row.label = f"{label} ({Path(identity).name[:8]})"


def _notes(found: ResultFiles, mixed: bool) -> list[str]:
    protocols = sorted({results["protocol"] for _, results in found})
    counts = {data_title(results): len(results["images"]) for _, results in found}
    notes = [
        "Protocols are mixed: values are not comparable." if mixed else f"Protocol: {', '.join(protocols)}.",
        "Means over images: " + ", ".join(f"{title} {count}" for title, count in counts.items()) + ".",
    ]
    sizes = sorted({f"{r['cost']['width']}x{r['cost']['height']}" for _, r in found if r["cost"]})
    devices = sorted({results["device"] for _, results in found if results["seconds"] is not None})
    if sizes:
        time = f"; time of an image (median) on {' or '.join(devices)}" if devices else ""
        notes.append(f"MACs of an image of {' or '.join(sizes)}{time}.")
    return notes


def _same_numbers(results: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the protocols of two results give the same scores for their images."""
    sizes = PUBLISHED_SIZES if {results["data_set"], other["data_set"]} == {PUBLISHED_SET} else ()
    return protocol_of(results).gives_the_numbers_of(protocol_of(other), sizes)


def _published_rows(found: ResultFiles, groups: bool) -> list[Row]:
    """Makes the published rows; rows that are comparable with none of our results are not ranked."""
    ours = [results for _, results in found if results["data_set"] == PUBLISHED_SET]
    if not ours:
        kin = {data_title(results): results["scored"]["published"] for _, results in found}
        titles = ", ".join(title + (f" ({text})" if text else "") for title, text in kin.items())
        raise UserError(f"published numbers are for {PUBLISHED_SET}; these results are on {titles}")
    rows = []
    for entry in published_rows():
        scores = {"": entry.printed}
        if groups:
            scores |= {group: getattr(entry, group).printed for group in ("indoor", "outdoor")}
        printed = {
            Column(f"{PUBLISHED_SET}, {group}" if group else PUBLISHED_SET, name): text
            for group, values in scores.items()
            for name, text in values.items()
        }
        values = {column: float(text) for column, text in printed.items()}
        if entry.parameters:
            values[Column("", "parameters")] = 1e6 * float(entry.parameters)
            printed[Column("", "parameters")] = entry.parameters
        ranked = all(entry.compares_with(results) for results in ours)
        rows.append(Row(entry.label, values, entry.protocol, entry.note, printed=printed, ranked=ranked))
    return rows


def _blurred_inputs(found: ResultFiles, groups: bool) -> list[Row]:
    """Makes a row of the blurred input's scores, so that readers can check their copy of the data."""
    values: dict[Column, float] = {}
    for _, results in found:
        title = data_title(results)
        values.update({Column(title, name): value for name, value in results["input_mean"].items()})
        for group, means in results["groups"].items() if groups else ():
            values.update({Column(f"{title}, {group}", name): value for name, value in means["input_mean"].items()})
    return [Row("blurred input", values, found[0][1]["protocol"], ranked=False)]


def _differences(ours: Sequence[tuple[Row, dict[str, Any]]]) -> None:
    """Adds our PSNR minus the published PSNR, for networks with a published row."""
    for row, results in ours:
        for entry in published_rows():
            if entry.psnr and results["model"]["name"] in entry.networks and entry.compares_with(results):
                row.values[Column(PUBLISHED_SET, "difference")] = results["mean"]["psnr"] - float(entry.psnr)


def _paired_tests(ours: Sequence[tuple[Row, dict[str, Any]]], label: str) -> list[PairedTest]:
    """Compares each other method with one method, on every common data set and metric."""
    labels = list(dict.fromkeys(row.label for row, _ in ours))
    if label not in labels:
        raise UserError(f"no method is called '{label}'{nearest(label, labels)}")
    tests = []
    for row, results in ours:
        for base, other in ours:
            if base.label != label or row is base or data_title(results) != data_title(other):
                continue
            if not _same_numbers(results, other):
                raise UserError(
                    f"'{row.label}' is scored under protocol '{results['protocol']}', but '{label}' under "
                    f"'{other['protocol']}'; a paired comparison needs the same protocol"
                )
            for name, quantity in METRICS.items():
                higher = quantity.better == "higher"
                difference = paired_difference(results["images"], other["images"], name, higher)
                if difference:
                    tests.append(PairedTest(row.label, label, data_title(results), name, difference))
    return tests


def _columns(rows: Sequence[Row]) -> list[Column]:
    """All columns: data sets in the order of the results, metrics in our fixed order, costs last."""
    there = {column: None for row in rows for column in row.values}
    titles = list(dict.fromkeys(column.over for column in there if column.quantity not in COSTS))
    order = [Column(title, name) for title in titles for name in (*METRICS, "difference")]
    order += [Column("", name) for name in COSTS]
    return [column for column in order if column in there]


def title_of(column: Column) -> str:
    """Head of a column, without the title above it."""
    return "to published [dB]" if column.quantity == "difference" else QUANTITIES[column.quantity].title
