"""How far a run is, read from its folder alone, so that an interrupted sweep knows what is left."""

from pathlib import Path
from typing import Literal

from kpac.config import load_config
from kpac.errors import UserError
from kpac.evaluation.results import FILE
from kpac.experiments.sweep import Run
from kpac.models.weights import read_header
from kpac.training.run_folder import differences

State = Literal["planned", "begun", "trained", "finished", "failed"]


def state_of(run: Run) -> State:
    """Whether a run waits, has begun, is trained, is trained and evaluated, or failed."""
    if failure_file(run).is_file():
        return "failed"
    if is_trained(run):
        return "finished" if (run.results / FILE).is_file() else "trained"
    return "begun" if (run.folder / "config.yaml").is_file() else "planned"


def is_trained(run: Run) -> bool:
    """Whether its last weights are those of its last iteration, or were given."""
    if run.weights:
        return True
    weights = run.folder / "checkpoints" / "last.safetensors"
    return weights.is_file() and read_header(weights).get("iteration") == run.config.train.iterations


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
