"""torchrun works with the thin launcher."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def torchrun(config_file: Path, *overrides: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "scripts" / "train.py"), str(config_file), *overrides]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)


@pytest.mark.parametrize("batch_size", [4])
def test_two_processes_train_one_model(config_file, tmp_path, batch_size):
    finished = torchrun(config_file, f"train.batch_size={batch_size}")
    assert finished.returncode == 0, finished.stderr
    lines = (tmp_path / "runs" / "small" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [2, 3, 4, 6, 6]


def test_batch_that_does_not_divide_is_refused(config_file, tmp_path):
    finished = torchrun(config_file, "train.batch_size=3")
    assert finished.returncode != 0
    assert "train.batch_size: 3 does not divide among 2 processes; expected a multiple of 2" in finished.stderr
    assert not (tmp_path / "runs").exists()
