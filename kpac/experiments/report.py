"""Reports of a sweep: a table over seeds and a curve of finished runs, and a plan with the expected times."""

import json
import math
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from kpac.evaluation.results import FILE, read_results
from kpac.experiments.progress import failure_of, state_of
from kpac.experiments.sweep import Run, Sweep
from kpac.models.cost import count_cost
from kpac.models.registry import create_model
from kpac.reporting.charts import CurvePoint, curve
from kpac.reporting.comparison import Column, Row, Table, compare, data_title
from kpac.reporting.formats import write_table
from kpac.reporting.units import METRICS, cell
from kpac.text import markdown_table

CURVE_METRIC = "psnr"


def write_report(sweep: Sweep) -> tuple[Table | None, list[Path]]:
    """Writes table.md, .tex, .csv and .json from the finished runs, and curve.png and .pdf for several settings.

    Returns:
        The table, or None while no run is finished; and the written files.

    Raises:
        UserError: the results do not compare.
    """
    table = table_of(sweep)
    if table is None:
        return None, []
    written = write_table(table, sweep.folder)
    points = _points(sweep, table)
    if len(points) > 1:
        pictures = [sweep.folder / "curve.png", sweep.folder / "curve.pdf"]
        curve(points, pictures, sweep.varied, CURVE_METRIC, sweep.ordered)
        written += pictures
    return table, written


def table_of(sweep: Sweep) -> Table | None:
    """Table with a row for each setting: means and deviations over the finished seeds."""
    finished = [run for run in sweep.runs if state_of(run) == "finished"]
    if not finished:
        return None
    found = [(run.results / FILE, read_results(run.results / FILE)) for run in finished]
    compare(found)  # raises if the results do not compare
    rows = []
    for label in sweep.labels:
        results = [values for run, (_, values) in zip(finished, found, strict=True) if run.label == label]
        if results:
            rows.append(_row(label, results))
    columns = list(dict.fromkeys(column for row in rows for column in row.values))
    columns.sort(key=lambda column: not column.over)  # metrics first, then costs
    _, first = found[0]
    notes = [f"Protocol: {first['protocol']}; means over {len(first['images'])} images of {data_title(first)}."]
    if first["cost"]:
        notes.append(f"MACs of an image of {first['cost']['width']}x{first['cost']['height']}.")
    notes.append(f"{len(finished)} of {len(sweep.runs)} runs are finished.")
    if any(row.deviations for row in rows):
        notes.append("Mean ± sample standard deviation over the seeds.")
    return Table(columns, rows, notes)


def plan_table(sweep: Sweep) -> str:
    """Table of all runs: state, parameters, multiply-accumulates of the training, and expected time.

    Times are estimated from the speed of this sweep's runs so far.
    """
    costs = {run: _training_macs(run) for run in sweep.runs}
    speeds = [speed for run in sweep.runs if (speed := _speed(run, costs[run][1])) is not None]
    rows = []
    for run in sweep.runs:
        parameters, macs = costs[run]
        crops = _crops(run)
        state = state_of(run)
        seconds = macs * crops / median(speeds) if speeds and state in ("planned", "begun", "failed") else None
        rows.append(
            [
                f"{run.label}, seed {run.config.seed}",
                state,
                cell("parameters", parameters),
                f"{run.config.train.iterations:,}",
                f"{macs * crops / 1e12:,.1f}",
                "-" if seconds is None else str(timedelta(seconds=round(seconds))),
            ]
        )
    text = markdown_table(["run", "state", "parameters [M]", "iterations", "training [TMACs]", "time"], rows)
    left = sum(row[1] != "finished" for row in rows)
    known = (
        "times follow from the speed of the runs so far, one after the other"
        if speeds
        else "times are known once one has trained for a while"
    )
    return f"{text}\n\n{left} of {len(rows)} runs are left in {sweep.folder}; {known}"


def failures(sweep: Sweep) -> list[str]:
    """Lists the failed runs, one line each."""
    return [f"{run.folder}: failed: {failure_of(run)}" for run in sweep.runs if state_of(run) == "failed"]


def _row(label: str, results: Sequence[dict[str, Any]]) -> Row:
    row = Row(label, protocol=results[0]["protocol"])
    title = data_title(results[0])
    for name in METRICS:
        if all(name in one["mean"] for one in results):
            values = [one["mean"][name] for one in results]
            row.values[Column(title, name)] = mean(values)
            if len(values) > 1 and all(map(math.isfinite, values)):
                row.deviations[Column(title, name)] = stdev(values)
    cost = results[0]["cost"] or {}
    costs = {"parameters": cost.get("parameters"), "macs": cost.get("macs")}
    row.values.update({Column("", name): value for name, value in costs.items() if value is not None})
    return row


def _points(sweep: Sweep, table: Table) -> list[CurvePoint]:
    """The curve, in the sweep's order."""
    short = {run.label: run.value for run in sweep.runs}
    points = []
    for row in table.rows:
        for column, value in row.values.items():
            if column.quantity == CURVE_METRIC:
                points.append(CurvePoint(short[row.label], value, row.deviations.get(column)))
    return points


def _training_macs(run: Run) -> tuple[int, int]:
    """Parameters, and multiply-accumulates for one crop, where the backward pass counts twice the forward pass."""
    crop = run.config.data.crop
    cost = count_cost(create_model(run.config.model.name, **run.config.model.options), crop, crop)
    return cost.parameters, 3 * cost.macs


def _crops(run: Run) -> float:
    """Number of crops in the whole training, converted to crops of the last stage's size."""
    done, total = 0, 0.0
    for stage in run.config.stages:
        total += (stage.until - done) * stage.batch_size * (stage.crop / run.config.data.crop) ** 2
        done = stage.until
    return total


def _speed(run: Run, macs: int) -> float | None:
    """Multiply-accumulates per second of a run's training so far, from its log."""
    log = run.folder / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    rates = [entry["images_per_second"] for entry in map(json.loads, lines) if "images_per_second" in entry]
    return macs * median(rates) if rates and median(rates) > 0 else None
