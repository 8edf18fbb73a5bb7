"""Progress of the runs of a sweep, determined from their folders alone, so that a sweep can resume."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from kpac.config import load_config
from kpac.data.layouts import find_scenes
from kpac.errors import UserError
from kpac.evaluation.results import FILE, UnusableResults, read_results
from kpac.experiments.sweep import Run, RunEvaluation
from kpac.files import sha256_of
from kpac.models.registry import create_model
from kpac.models.weights import read_weights_header, weights_file
from kpac.training.run_folder import differences, in_use

State = Literal["planned", "begun", "running", "trained", "finished", "failed"]


def state_of(run: Run) -> State:
    """State of a run: planned, begun, running (in any process), trained, finished (also evaluated) or failed."""
    if not run.weights and in_use(run.folder):
        return "running"
    if failure_file(run).is_file():
        return "failed"
    if is_trained(run):
        return "finished" if all(is_evaluated(run, one) for one in run.evaluations) else "trained"
    return "begun" if (run.folder / "config.yaml").is_file() else "planned"


def is_trained(run: Run) -> bool:
    """Whether a run has the weights of its last iteration, or weights were given for it."""
    if run.weights:
        return True
    weights = run.folder / "checkpoints" / "last.safetensors"
    return weights.is_file() and read_weights_header(weights).get("iteration") == run.config.train.iterations


def is_evaluated(run: Run, evaluation: RunEvaluation) -> bool:
    """Whether a run has results of an evaluation, made with its own weights, not with weights given earlier.

    Results that are damaged, or of an older version, do not count; the run is evaluated again.

    Raises:
        UserError: the results are of a newer version.
    """
    if not (evaluation.results / FILE).is_file():
        return False
    weights = weights_file(run.weights or run.folder)
    try:
        results = read_results(evaluation.results / FILE)
    except UnusableResults:
        return False
    return results["model"].get("sha256") == sha256_of(weights)


def can_resume(run: Run) -> bool:
    """Whether a run has a training checkpoint to resume from."""
    return any((run.folder / "checkpoints").glob("iteration_*.pt"))


def check_unchanged(run: Run) -> None:
    """Checks that an existing run was trained with the configuration of this sweep.

    Raises:
        UserError: the run's folder holds another configuration.
    """
    own = run.folder / "config.yaml"
    if not own.is_file():
        return
    changes = differences(load_config(own).model_dump(mode="json"), run.config.model_dump(mode="json"))
    if changes:
        raise UserError(
            f"{run.folder}: was trained with another configuration ({', '.join(changes)}); "
            "give the sweep another name, or remove this folder"
        )


def check_data(runs: Sequence[Run]) -> None:
    """Checks that the data of unfinished runs exist, once for each data set, split and choice of views.

    Raises:
        UserError: a data set or split is missing, or lacks views or targets that a run needs.
    """
    needed: dict[tuple[Any, ...], bool] = {}  # arguments of `find_scenes` -> whether targets are needed, too
    for run in runs:
        if state_of(run) == "finished":
            continue
        data, model = run.config.data, run.config.model
        views = tuple(create_model(model.name, **model.options).views)
        for evaluation in run.evaluations:
            root, split, *how = evaluation.scored_on
            needed.setdefault((root, split, views, *how), False)
        if not is_trained(run):
            how = [data.layout, data.pair_by_order]
            needed.update({(data.root, split, views, *how): True for split in ("train", "val")})
    for (root, split, views, layout, by_order), targets in needed.items():
        find_scenes(root, split, views, layout, targets=targets, pair_by_order=by_order)


def log_file(run: Run) -> Path:
    """Log file of a run: the output of its commands."""
    return run.folder.parent / "logs" / f"{run.folder.name}.log"


def failure_file(run: Run) -> Path:
    """File that exists if a run failed, and holds the reason."""
    return log_file(run).with_suffix(".failed")


def job_file(run: Run) -> Path:
    """File that exists while a job submitted for a run has not ended; it holds the job's number."""
    return log_file(run).with_suffix(".job")


def failure_of(run: Run) -> str:
    """The reason why a run failed, in one line."""
    return failure_file(run).read_text(encoding="utf-8").strip()
