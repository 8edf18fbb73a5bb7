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
from kpac.reporting.charts import CurvePoint, curve, scatter
from kpac.reporting.comparison import Column, Table, compare, data_title
from kpac.reporting.formats import write_table
from kpac.reporting.units import METRICS, cell
from kpac.text import file_name, markdown_table

CURVE_METRIC = "psnr"


def write_report(sweep: Sweep) -> tuple[Table | None, list[Path]]:
    """Writes the table of the finished runs; for two or more settings also a curve per data set and a scatter plot.

    Returns:
        The table, or None while no run is finished; and the written files.

    Raises:
        UserError: the results are not comparable.
    """
    table = table_of(sweep)
    if table is None:
        return None, []
    written = write_table(table, sweep.folder)
    if len(table.rows) > 1:
        for column in [column for column in table.columns if column.quantity == CURVE_METRIC]:
            first = column == table.columns[0]
            written += (pictures := _pictures(sweep, "curve" if first else f"curve-{file_name(column.over)}"))
            curve(_points(sweep, table, column), pictures, sweep.varied, CURVE_METRIC, sweep.ordered)
        written += (pictures := _pictures(sweep, "quality_against_parameters"))
        scatter(table, pictures, CURVE_METRIC, "parameters")
    return table, written


def table_of(sweep: Sweep) -> Table | None:
    """Table with a row for each setting: means and deviations over the finished seeds.

    Below it, every setting is compared with the first one, image by image.
    """
    finished = [run for run in sweep.runs if state_of(run) == "finished"]
    if not finished:
        return None
    compare([found for run in finished for found in _results_of(run)])  # raises if the results are not comparable
    means: list[tuple[Path, dict[str, Any]]] = []
    deviations: dict[str, dict[Column, float]] = {}
    for label in sweep.labels:
        runs = [_results_of(run) for run in finished if run.label == label]
        for number, seeds in enumerate(zip(*runs, strict=True)):
            results = [one for _, one in seeds]
            means.append((seeds[0][0], _mean_over_seeds(label, results, costs=number == 0)))
            deviations[label] = deviations.get(label, {}) | _deviations(results)
    table = compare(means, paired_with=means[0][1]["label"] if len(deviations) > 1 else None)
    table.tests = [test for test in table.tests if test.quantity == CURVE_METRIC]
    for row in table.rows:
        row.deviations = deviations[row.label]
    table.notes.append(f"{len(finished)} of {len(sweep.runs)} runs are finished.")
    if any(deviations.values()):
        table.notes.append("Mean ± sample standard deviation over the seeds.")
    return table


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
        "times are estimated from the runs so far, for one run at a time"
        if speeds
        else "times are estimated once a run has trained for a while"
    )
    return f"{text}\n\n{left} of {len(rows)} runs are left in {sweep.folder}; {known}"


def failures(sweep: Sweep) -> list[str]:
    """Lists the failed runs, one line each."""
    return [f"{run.folder}: failed: {failure_of(run)}" for run in sweep.runs if state_of(run) == "failed"]


def _results_of(run: Run) -> list[tuple[Path, dict[str, Any]]]:
    """The results files of a run's evaluations, and their content."""
    return [(path, read_results(path)) for path in (one.results / FILE for one in run.evaluations)]


def _mean_over_seeds(label: str, seeds: Sequence[dict[str, Any]], costs: bool) -> dict[str, Any]:
    """Averages results over seeds, for the whole set and for each image; returns results for `compare`."""
    images = []
    for record in seeds[0]["images"]:
        same = [next(image for image in one["images"] if image["name"] == record["name"]) for one in seeds]
        images.append({"name": record["name"], **_means(same)})
    first = seeds[0]
    mean_scores = _means([one["mean"] for one in seeds])
    cost = first["cost"] if costs else None
    return {**first, "label": label, "mean": mean_scores, "images": images, "cost": cost, "seconds": None}


def _means(scores: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means of the metrics that all entries have."""
    return {name: mean(one[name] for one in scores) for name in METRICS if all(name in one for one in scores)}


def _deviations(seeds: Sequence[dict[str, Any]]) -> dict[Column, float]:
    """Sample standard deviations over seeds, of the metrics that all results have."""
    found = {}
    for name in METRICS if len(seeds) > 1 else ():
        values = [one["mean"].get(name, math.nan) for one in seeds]
        if all(map(math.isfinite, values)):
            found[Column(data_title(seeds[0]), name)] = stdev(values)
    return found


def _pictures(sweep: Sweep, stem: str) -> list[Path]:
    return [sweep.folder / f"{stem}.png", sweep.folder / f"{stem}.pdf"]


def _points(sweep: Sweep, table: Table, column: Column) -> list[CurvePoint]:
    """The curve, in the sweep's order."""
    short = {run.label: run.value for run in sweep.runs}
    return [CurvePoint(short[row.label], row.values[column], row.deviations.get(column)) for row in table.rows]


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
