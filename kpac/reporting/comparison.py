"""Several evaluations in one table: what may stand in one column, published numbers beside it, what is best."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from kpac.errors import UserError
from kpac.reporting.units import COSTS, METRICS, QUANTITIES

COMBINED = "combined"
Found = Sequence[tuple[Path, dict[str, Any]]]  # results.json files and what they hold


@dataclass(frozen=True)
class Column:
    """Values of one quantity.

    Args:
        over: title above it: the data set and the group of images; "" for costs.
        quantity: a name in `kpac.reporting.units`, or "difference": PSNR minus the published one.
    """

    over: str
    quantity: str


@dataclass
class Row:
    """One method.

    Args:
        label: its name.
        values: in the units of results.json.
        protocol: under which it was scored.
        source: of a published row; None for our own.
        deviations: sample standard deviations over seeds, of values that are means over seeds.
        printed: of a published row, its values with the digits in which they were published.
    """

    label: str
    values: dict[Column, float] = field(default_factory=dict)
    protocol: str = ""
    source: str | None = None
    deviations: dict[Column, float] = field(default_factory=dict)
    printed: dict[Column, str] = field(default_factory=dict)


@dataclass
class Table:
    """Rows and columns, with the notes that belong below."""

    columns: list[Column]
    rows: list[Row]
    notes: list[str]
    mixed: bool = False

    def ranks(self) -> dict[tuple[int, Column], int]:
        """Row and column of the best (0) and second best (1) metrics, as they are printed; equal ones share a rank.

        Nothing is ranked in a column of a single value, nor where protocols are mixed.
        """
        found: dict[tuple[int, Column], int] = {}
        for column in self.columns if not self.mixed else []:
            if column.quantity not in METRICS:
                continue
            quantity = METRICS[column.quantity]
            values = {
                index: round(row.values[column], quantity.digits)
                for index, row in enumerate(self.rows)
                if column in row.values
            }
            order = sorted(set(values.values()), reverse=quantity.better == "higher")
            if len(values) > 1:
                places = {index: order.index(value) for index, value in values.items()}
                found.update({(index, column): place for index, place in places.items() if place < 2})
        return found


def compare(found: Found, groups: bool = False, mix_protocols: bool = False, published: bool = False) -> Table:
    """Puts results into one table, a row for each method.

    Args:
        found: from `kpac.evaluation.results.find_results`.
        groups: adds the means of indoor and outdoor scenes.
        mix_protocols: allows different protocols in one column; each row then names its own, and nothing is ranked.
        published: adds the rows of published.yaml.

    Raises:
        UserError: results that do not compare, or published numbers for another data set.
    """
    _check(found, mix_protocols)
    mixed = mix_protocols and len({results["protocol"] for _, results in found}) > 1
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
        ours.append((row, results))
    _tell_apart(rows)
    notes = _notes(found, mixed)
    everything = list(rows.values())
    if published:
        theirs = _published_rows(found, mix_protocols)
        _differences(ours)
        everything = [*theirs, *everything]
        notes += [f"Published: {row.label}: {row.source}." for row in theirs]
    columns = _columns(everything)
    return Table(columns, everything, notes, mixed)


def data_title(results: dict[str, Any]) -> str:
    """The data set of some results, as tables name it."""
    return results["data_set"] or f"{Path(results['data']).name} {results['split']}"


@cache
def published_numbers() -> list[dict[str, Any]]:
    """The entries of published.yaml; numbers are text, with the digits in which they were published."""
    return yaml.load((files("kpac.reporting") / "published.yaml").read_text(encoding="utf-8"), yaml.BaseLoader)


def _check(found: Found, mix_protocols: bool) -> None:
    """Refuses one column for what does not compare: other protocols, other images."""
    first: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path, results in found:
        other_path, other = first.setdefault(data_title(results), (path, results))
        if results["protocol_settings"] != other["protocol_settings"] and not mix_protocols:
            raise UserError(
                f"{path}: scored under protocol '{results['protocol']}', {other_path} under '{other['protocol']}'; "
                "such numbers do not compare. Leave one out, or add --mix-protocols"
            )
        names, others = ({image["name"] for image in item["images"]} for item in (results, other))
        if names != others:
            raise UserError(
                f"{path}: scored on {len(names)} images, {other_path} on {len(others)}, and {len(names ^ others)} are "
                "in one list only; expected the same images"
            )


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
    """Different weights under one name get the beginning of their hash."""
    for (label, identity, protocol), row in rows.items():
        if sum(other[0] == label and other[2] == protocol for other in rows) > 1:
            row.label = f"{label} ({Path(identity).name[:8]})"


def _notes(found: Found, mixed: bool) -> list[str]:
    protocols = sorted({results["protocol"] for _, results in found})
    counts = {data_title(results): len(results["images"]) for _, results in found}
    notes = [
        "Protocols are mixed: the columns compare nothing." if mixed else f"Protocol: {', '.join(protocols)}.",
        "Means over images: " + ", ".join(f"{title} {count}" for title, count in counts.items()) + ".",
    ]
    sizes = sorted({f"{r['cost']['width']}x{r['cost']['height']}" for _, r in found if r["cost"]})
    devices = sorted({results["device"] for _, results in found if results["seconds"] is not None})
    if sizes:
        notes.append(f"MACs of an image of {' or '.join(sizes)}; time of an image (median) on {' or '.join(devices)}.")
    return notes


def _published_rows(found: Found, mix_protocols: bool) -> list[Row]:
    protocols = {data_title(results): results["protocol"] for _, results in found}
    entries = [entry for entry in published_numbers() if entry["data_set"] in protocols]
    if not entries:
        there = ", ".join(sorted({entry["data_set"] for entry in published_numbers()}))
        raise UserError(f"--published: there are numbers for {there}; these results are on {', '.join(protocols)}")
    rows = []
    for entry in entries:
        ours = protocols[entry["data_set"]]
        if entry["protocol"] != ours and not mix_protocols:
            raise UserError(
                f"--published: {entry['label']} is published under protocol '{entry['protocol']}', these results are "
                f"under '{ours}'; evaluate under that one, or add --mix-protocols"
            )
        title = entry["data_set"] + ("" if entry["group"] == COMBINED else f", {entry['group']}")
        printed = {Column(title, name): entry[name] for name in METRICS if name in entry}
        values = {column: float(text) for column, text in printed.items()}
        rows.append(Row(entry["label"], values, entry["protocol"], entry["source"], printed=printed))
    return rows


def _differences(ours: Sequence[tuple[Row, dict[str, Any]]]) -> None:
    """Our PSNR minus the published one, for the networks that a published row is about."""
    for row, results in ours:
        for entry in published_numbers():
            is_about = results["model"]["name"] in entry["networks"] and entry["group"] == COMBINED
            if is_about and entry["data_set"] == data_title(results) and entry["protocol"] == results["protocol"]:
                row.values[Column(entry["data_set"], "difference")] = results["mean"]["psnr"] - float(entry["psnr"])


def _columns(rows: Sequence[Row]) -> list[Column]:
    """Data sets in the order in which they come, metrics in ours, costs last."""
    there = {column: None for row in rows for column in row.values}
    titles = list(dict.fromkeys(column.over for column in there if column.quantity not in COSTS))
    order = [Column(title, name) for title in titles for name in (*METRICS, "difference")]
    order += [Column("", name) for name in COSTS]
    return [column for column in order if column in there]


def title_of(column: Column) -> str:
    """The head of a column, without what stands over it."""
    return "to published [dB]" if column.quantity == "difference" else QUANTITIES[column.quantity].title
