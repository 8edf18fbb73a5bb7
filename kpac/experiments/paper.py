"""Reproduces the paper's tables: its three networks on DPDD's test split, with the published numbers."""

from collections.abc import Sequence
from pathlib import Path

from kpac.config import load_config, nearest
from kpac.data.check import check
from kpac.data.layouts import find_scenes
from kpac.errors import UserError
from kpac.evaluation.results import FILE, read_results
from kpac.experiments.progress import state_of
from kpac.experiments.sweep import EvaluationSection, Run, Sweep, make_evaluation
from kpac.models.registry import resolve_model
from kpac.models.weights import read_weights_header
from kpac.reporting.charts import scatter
from kpac.reporting.comparison import Table, compare
from kpac.reporting.formats import write_table

NETWORKS = ("kpac_2level", "kpac_3level", "kpac_dual")
PROTOCOL = "saved-png-8bit"  # probable protocol of the published numbers; see kpac/reporting/published.yaml


def paper_sweep(
    dpdd: Path, networks: Sequence[str], checkpoints: Sequence[Path], configs: Path, overrides: Sequence[str] = ()
) -> Sweep:
    """Makes the sweep of the runs for the tables.

    Args:
        dpdd: folder of DPDD.
        networks: names of the paper's networks to include; those without a checkpoint will be trained.
        checkpoints: .safetensors files to evaluate instead of training their networks.
        configs: folder of the paper's configurations.
        overrides: overrides for all runs.

    Raises:
        UserError: two checkpoints of the same network, a checkpoint of another network, a missing configuration, or no
            data set.
    """
    given: dict[str, Path] = {}
    for path in checkpoints:
        if path.suffix == ".npz":
            raise UserError(f"{path}: an authors' file; convert it: kpac convert {path} {path.stem}.safetensors")
        name = read_weights_header(path)["model"]["name"]
        if name not in networks:
            raise UserError(f"{path}: holds the network '{name}'; expected one of {', '.join(networks)}")
        if name in given:
            raise UserError(f"{path}: {given[name]} is also a checkpoint of {name}; give only one")
        given[name] = path
    if not configs.is_dir():
        raise UserError(f"{configs}: no such folder", "configs")
    runs = []
    for name in networks:
        base = configs / f"{name}.yaml"
        words = [f"data.root={dpdd}", *overrides]
        folder = load_config(base, words).runs / "paper"
        words += [f"runs={folder}", f"name={name}"]
        config = resolve_model(load_config(base, words))
        evaluation = make_evaluation(config, EvaluationSection(data=dpdd, protocol=PROTOCOL))
        runs.append(Run(name, name, config, (str(base), *words), (evaluation,), given.get(name)))
        find_scenes(dpdd, "test", ("center", "left", "right") if name == "kpac_dual" else ("center",))
    return Sweep("paper", folder, "network", False, tuple(runs), {})


def check_networks(names: Sequence[str]) -> None:
    """Refuses names that are not among the paper's networks.

    Raises:
        UserError: an unknown name; the message suggests the nearest one.
    """
    for name in names:
        if name not in NETWORKS:
            raise UserError(f"network '{name}': not one of the paper's{nearest(name, NETWORKS)}")


def needs(sweep: Sweep) -> list[str]:
    """Lists what the runs need, one line each."""
    trained = [run.label for run in sweep.runs if not run.weights]
    root = sweep.runs[0].config.data.root
    lines = [f"DPDD's test split in {root}, complete as published, to evaluate under the protocol {PROTOCOL}"]
    if trained:
        lines.append(f"DPDD's training and validation splits, and days of GPU time, to train {', '.join(trained)}")
    lines += [f"{run.weights}: the given weights of {run.label}" for run in sweep.runs if run.weights]
    return lines


def check_dpdd(sweep: Sweep) -> list[str]:
    """Decodes the data set, and checks that it is the complete published one.

    Returns:
        A line with the result for each split.

    Raises:
        UserError: the first problem found.
    """
    root = sweep.runs[0].config.data.root
    needed = ["test"] if all(run.weights for run in sweep.runs) else ["train", "val", "test"]
    reports = {report.split: report for report in check(root)}
    for split in needed:
        if split not in reports:
            raise UserError(f"{root}: no {split} split; expected all of DPDD, see data/README.md")
        report = reports[split]
        if report.faults:
            raise UserError(f"{root}: {report.faults[0].text}; 'kpac data check {root}' lists everything")
        if not report.published:
            kin = report.kinship.text() if report.kinship else "its file names differ"
            raise UserError(f"{root}: the {split} split is not DPDD's: {kin}; expected DPDD as published")
    return [reports[split].verdict() for split in needed]


def write_paper_report(sweep: Sweep) -> tuple[Table | None, list[Path]]:
    """Writes table.md, .tex, .csv and .json, and quality_against_cost.png and .pdf, from the finished runs.

    Returns:
        The table, or None while no run is finished; and the written files.
    """
    finished = [run.evaluations[0].results / FILE for run in sweep.runs if state_of(run) == "finished"]
    if not finished:
        return None, []
    table = compare([(path, read_results(path)) for path in finished], published=True)
    tables = write_table(table, sweep.folder)
    pictures = [sweep.folder / "quality_against_cost.png", sweep.folder / "quality_against_cost.pdf"]
    scatter(table, pictures)
    return table, [*tables, *pictures]
