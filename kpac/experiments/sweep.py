"""A sweep: a base configuration, the keys to vary, and the resulting runs."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from kpac.config import Config, Section, load_config, read_yaml, validate
from kpac.config.sections import RUN_NAME
from kpac.errors import UserError
from kpac.evaluation.protocols import find_protocol
from kpac.experiments import labels
from kpac.experiments.scoring import ScoringSection
from kpac.models.registry import resolve_model
from kpac.text import file_name

Seed = Annotated[int, Field(ge=0)]


class EvaluationSection(ScoringSection):
    data: Path | None = None
    """Folder of the data set to evaluate on; null: the training data set."""
    split: str = "test"
    """train, val or test."""
    layout: str = "auto"
    """Layout of the data set on disk; for the training data set, "auto" is data.layout."""
    pair_by_order: bool = False
    """Pairs images by the sorted order of their names; for the training data set, also on with data.pair_by_order."""
    protocol: str | None = None
    """Protocol of the evaluation; null: the protocol of the base configuration's validation."""


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


Evaluations = Annotated[list[EvaluationSection], Field(min_length=1), BeforeValidator(_as_list)]


class SweepFile(Section):
    name: Annotated[str, Field(pattern=RUN_NAME)]
    """Name of the sweep; its folder is `runs/NAME`."""
    base: Path
    """Configuration that all runs share; relative to this file."""
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Dotted keys and their values; every combination is a run."""
    points: dict[str, dict[str, Any]] = {}
    """Instead of axes: name of each run -> its dotted keys and values."""
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    """Every run is repeated with each seed; tables give mean and standard deviation."""
    evaluation: Evaluations = [EvaluationSection()]
    """Evaluations of every run: one section, or a list."""
    slurm: dict[str, Any] = {}
    """Parameters of submitit for jobs, such as slurm_partition, gpus_per_node, timeout_min, slurm_array_parallelism."""

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("should hold each seed once")
        return seeds

    @model_validator(mode="after")
    def _check(self) -> "SweepFile":
        if bool(self.axes) == bool(self.points):
            raise ValueError("expected either '{prefix}axes' or '{prefix}points'")
        return self


@dataclass(frozen=True)
class RunEvaluation:
    """One evaluation of a run."""

    flags: tuple[str, ...]  # arguments for `kpac evaluate`, without the model and the output
    scored_on: tuple[Path, str, str, bool]  # data set, split, layout and pairing by order; see `find_scenes`
    results: Path  # folder of the results


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a sweep."""

    label: str  # the run's setting, for tables; the same for all seeds
    value: str  # short form of the label, for a curve
    config: Config  # resolved configuration
    words: tuple[str, ...]  # arguments for `kpac train`
    evaluations: tuple[RunEvaluation, ...]  # evaluations of the run, at least one
    weights: Path | None = None  # weights to evaluate instead of training; None to train

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.config.folder


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep, with everything that its tables and figures need."""

    name: str
    folder: Path  # folder of its runs and tables
    varied: str  # title of the curve's axis; "" if the runs' values name the quantity
    ordered: bool  # see `kpac.experiments.labels.is_ordered`
    runs: tuple[Run, ...]  # runs in the order of the table
    slurm: dict[str, Any]  # see `SweepFile`

    @property
    def labels(self) -> list[str]:
        """Labels of the runs, each once."""
        return list(dict.fromkeys(run.label for run in self.runs))


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Reads a sweep, and checks the configuration of every run.

    Args:
        path: a YAML file; see `SweepFile`.
        overrides: dotted assignments for all runs, such as data.root=/data/dpdd.

    Raises:
        UserError: a mistake in the file, in its base configuration, or in the keys that a run sets.
    """
    tree = read_yaml(path)
    file = validate(SweepFile, tree, [(str(path), tree)])
    base = path.parent / file.base
    shared = load_config(base, overrides)
    folder = shared.runs / file.name
    settings = file.points or {_label(point): point for point in _grid(file.axes)}
    runs = []
    for label, point in settings.items():
        value = labels.label(file.axes, point) if file.axes else label
        assignments = [f"{key}={json.dumps(entry)}" for key, entry in point.items()]
        for seed in file.seeds:
            name = file_name(label) + (f"-seed{seed}" if len(file.seeds) > 1 else "")
            words = [*overrides, *assignments, f"seed={seed}", f"runs={json.dumps(str(folder))}", f"name={name}"]
            try:
                config = resolve_model(load_config(base, words))
            except UserError as error:
                raise error.within(f"{path}: run '{label}'") from None
            evaluations = tuple(make_evaluation(config, section) for section in file.evaluation)
            runs.append(Run(label, value, config, (str(base), *words), evaluations))
    folders = [run.folder for run in runs]
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice:
        raise UserError(
            f"{path}: two runs would have the name '{twice.name}'; give them different names under 'points'"
        )
    varied, ordered = labels.title(file.axes), labels.is_ordered(file.axes)
    return Sweep(file.name, folder, varied, ordered, tuple(runs), file.slurm)


def make_evaluation(config: Config, evaluation: EvaluationSection) -> RunEvaluation:
    """Makes the evaluation of a run from its configuration and a section of the sweep's file.

    Raises:
        UserError: no such protocol.
    """
    data = evaluation.data or config.data.root
    protocol = evaluation.protocol or config.validation.protocol
    find_protocol(protocol)
    results = config.folder / "results" / f"{data.resolve().name}-{evaluation.split}-{Path(protocol).name}"
    flags = ["--data", str(data), "--split", evaluation.split, "--protocol", protocol, "--device", config.device]
    layout, by_order = evaluation.layout, evaluation.pair_by_order
    if evaluation.data is None:
        layout = config.data.layout if layout == "auto" else layout
        by_order = by_order or config.data.pair_by_order
    flags += [*evaluation.metric_flags(), "--layout", layout, *(["--pair-by-order"] if by_order else [])]
    flags += itertools.chain.from_iterable(("--plugin", plugin) for plugin in config.plugins)
    return RunEvaluation(tuple(flags), (data, evaluation.split, layout, by_order), results)


def _grid(axes: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _label(point: dict[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {_text(value)}" for key, value in point.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
