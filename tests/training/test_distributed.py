"""torchrun works with the thin launcher."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kpac.config import load_config
from kpac.models.registry import create_model
from kpac.models.weights import load_model
from kpac.training.trainer import train

ROOT = Path(__file__).parents[2]


def torchrun(config_file: Path, *overrides: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "scripts" / "train.py"), str(config_file), *overrides]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)


def test_two_processes_train_the_model_that_one_trains(config_file, tmp_path):
    finished = torchrun(config_file, "train.batch_size=4", "name=two")
    assert finished.returncode == 0, finished.stderr
    train(load_config(config_file, ["train.batch_size=4", "name=one"]))
    runs = tmp_path / "runs"
    one, two = (load_model(runs / name / "checkpoints" / "last.safetensors").state_dict() for name in ("one", "two"))
    start = create_model("kpac_2level", **load_config(config_file).model.options).state_dict()
    for key, value in one.items():
        # Gradients are sums in another order; six steps of Adam at 2e-3 move a weight by up to 1e-2.
        torch.testing.assert_close(two[key], value, atol=1e-4, rtol=0)
    assert any((one[key] - start[key]).abs().max() > 1e-4 for key in one)
    logs = [(runs / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")]
    losses = [[entry["loss"] for line in log if (entry := json.loads(line))["kind"] == "train"] for log in logs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_batch_that_does_not_divide_is_refused(config_file, tmp_path):
    finished = torchrun(config_file, "train.batch_size=3")
    assert finished.returncode != 0
    assert "train.batch_size: 3 does not divide among 2 processes; expected a multiple of 2" in finished.stderr
    assert not (tmp_path / "runs").exists()
