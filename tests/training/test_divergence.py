"""A step that is not finite is skipped and counted; too many in a row end the run and spoil nothing."""

import json
from pathlib import Path

import pytest
import torch

from kpac.commands.remedies import explain
from kpac.config import load_config
from kpac.errors import UserError
from kpac.models.weights import load_model
from kpac.training.skipped_steps import SkippedSteps
from kpac.training.trainer import train
from tests.conftest import NETWORKS


@pytest.fixture
def lapse(config_file):
    """Trains a network that gives NaN in some of its passes, counted from 1."""

    def run(bad: list[int], *overrides: str) -> Path:
        settings = [f"plugins=[{NETWORKS}]", "model={name: lapse}", f"model.bad={bad}", "train.log_every=1"]
        settings += ["train.iterations=8", "validation.every=8", *overrides]
        return train(load_config(config_file, settings))

    return run


def lines(folder: Path) -> list[dict]:
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["kind"] == "train"]


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_skipped_step_is_counted_and_leaves_the_means_alone(lapse):
    folder = lapse([2, 3, 7], "train.log_every=2")
    steps = lines(folder)
    assert [step["skipped"] for step in steps] == [1, 2, 2, 3]
    assert all(0 < step["loss"] < 1 for step in steps)
    assert torch.isfinite(load_model(folder).scale).all()


def test_line_of_skipped_steps_alone_has_no_loss(lapse):
    assert [step["loss"] is None for step in lines(lapse([2]))] == [False, True] + 6 * [False]


def test_too_many_in_a_row_end_the_run_and_name_the_scenes(lapse, tmp_path):
    with pytest.raises(UserError) as error:
        lapse([2, 5, 6, 7], "train.skip_limit=3", "train.checkpoint.every=4", "train.batch_size=8")
    message = explain(error.value)
    assert "iteration 7: the loss or its gradient was not finite in 3 steps in a row" in message
    assert "the last batch shows photo 0_0, photo 0_1" in message.replace("_scene", "_")
    folder = tmp_path / "runs" / "small"
    assert f"iteration_0000004.pt with a lower learning rate: kpac train --resume {folder}" in message
    assert "\n" not in message
    assert saved(folder) == ["iteration_0000004.pt"]


def test_checkpoint_waits_for_a_good_step(lapse):
    folder = lapse([4, 5], "train.checkpoint={every: 4, keep: 9}")
    assert [name for name in saved(folder) if name.endswith(".pt")] == ["iteration_0000006.pt", "iteration_0000008.pt"]


def test_output_that_is_no_number_ends_the_run_and_leaves_no_weights(lapse, tmp_path):
    with pytest.raises(UserError, match="iteration 3: the network's output is not a number"):
        lapse([], "model.blind=true", "validation.every=3")
    assert not list((tmp_path / "runs").rglob("*.safetensors"))


def test_counts_are_read_only_when_asked():
    skipped_steps = SkippedSteps(torch.device("cpu"))
    for iteration, good in enumerate([True, False, False, True, False], start=1):
        skipped_steps.count(torch.tensor(good), iteration, start=10 * iteration)
    read = skipped_steps.read()
    assert (read.streak, read.longest, read.total, read.latest, read.start) == (1, 2, 3, 5, 50)
