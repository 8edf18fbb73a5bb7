"""How far a run is, read from its folder alone, so that an interrupted sweep knows what is left."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from kpac.config import load_config
from kpac.data.layouts import find_scenes
from kpac.errors import UserError
from kpac.evaluation.results import FILE, UnusableResults, read_results
from kpac.experiments.sweep import Run
from kpac.models.registry import create_model
from kpac.models.weights import read_header, weights_file
from kpac.training.run_folder import differences, in_use

State = Literal["planned", "begun", "running", "trained", "finished", "failed"]


def state_of(run: Run) -> State:
    """Whether a run waits, has begun, is being trained by any process, is trained, is evaluated as well, or failed."""
    if not run.weights and in_use(run.folder):
        return "running"
    if failure_file(run).is_file():
        return "failed"
    if is_trained(run):
        return "finished" if is_evaluated(run) else "trained"
    return "begun" if (run.folder / "config.yaml").is_file() else "planned"


def is_trained(run: Run) -> bool:
    """Whether its last weights are those of its last iteration, or were given."""
    if run.weights:
        return True
    weights = run.folder / "checkpoints" / "last.safetensors"
    return weights.is_file() and read_header(weights).get("iteration") == run.config.train.iterations


def is_evaluated(run: Run) -> bool:
    """Whether its results are there, and are those of its weights: other weights may have been given before.

    Results of an older version, or damaged ones, count as none: the run is evaluated again.

    Raises:
        UserError: the results are of a newer version.
    """
    if not (run.results / FILE).is_file():
        return False
    weights = weights_file(run.weights or run.folder)
    try:
        results = read_results(run.results / FILE)
    except UnusableResults:
        return False
    return results["model"].get("sha256") == sha256(weights.read_bytes()).hexdigest()


def can_resume(run: Run) -> bool:
    """Whether it left a checkpoint to go on from."""
    return any((run.folder / "checkpoints").glob("iteration_*.pt"))


def check_unchanged(run: Run) -> None:
    """Refuses to take a run for one of this sweep that was trained otherwise.

    Raises:
        UserError: its folder holds another configuration.
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
    """Looks for the data that unfinished runs will read, once for each data set, split and choice of views.

    Raises:
        UserError: a data set or split that is not there, or without the views or targets that a run needs.
    """
    needed: dict[tuple[Any, ...], bool] = {}  # in order; whether targets are needed, too
    for run in runs:
        if state_of(run) == "finished":
            continue
        data, model = run.config.data, run.config.model
        views = tuple(create_model(model.name, **model.options).views)
        root, split = run.scored_on
        needed.setdefault((root, split, views, "auto"), False)
        if not is_trained(run):
            needed.update({(data.root, split, views, data.layout): True for split in ("train", "val")})
    for (root, split, views, layout), targets in needed.items():
        find_scenes(root, split, views, layout, targets=targets)


def log_file(run: Run) -> Path:
    """What its commands printed."""
    return run.folder.parent / "logs" / f"{run.folder.name}.log"


def failure_file(run: Run) -> Path:
    """Is there when it failed, and says why."""
    return log_file(run).with_suffix(".failed")


def job_file(run: Run) -> Path:
    """Is there while a job that was submitted for it has not ended, and holds its number."""
    return log_file(run).with_suffix(".job")


def failure_of(run: Run) -> str:
    """Why it failed, in a line."""
    return failure_file(run).read_text(encoding="utf-8").strip()
