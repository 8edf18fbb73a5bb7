"""Data that stop coming end a training at once, in one line that says how to continue."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from kpac.environment import usable_cores
from kpac.training.datasets import default_workers

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "scripts/train.py"]


@pytest.fixture
def data(data_root, tmp_path) -> Path:
    return shutil.copytree(data_root, tmp_path / "data")


def disturbed(command: list[str], config: Path, data: Path, disturb: Callable) -> tuple[int, str]:
    """Trains until there is a checkpoint, does something, and gives the exit status and what stderr then says."""
    folder = config.parent / "runs" / "small"
    words = [*command, str(config), f"data.root={data}", "data.workers=2", "train.iterations=100000"]
    with subprocess.Popen(
        [sys.executable, *words], stderr=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT
    ) as run:
        try:
            while run.poll() is None and not list(folder.glob("checkpoints/iteration_*.pt")):
                time.sleep(0.05)
            disturb(psutil.Process(run.pid))
            errors = run.communicate(timeout=120)[1]
        finally:
            run.kill()
    return run.returncode, errors


def said(errors: str) -> list[str]:
    """What the command says beside its steps, but for the decoding before them and for Numba, if that is missing."""
    usual = ("kpac: decoding", "kpac: computing with PyTorch alone")
    return [line for line in errors.splitlines() if line.startswith("kpac: ") and not line.startswith(usual)]


def test_source_that_vanishes_ends_the_run_in_one_line(config_file, data):
    source = min((data / "train_c" / "source").iterdir())
    status, errors = disturbed(["-m", "kpac", "train"], config_file, data, lambda _: source.unlink())
    assert status == 2, errors
    assert "Traceback" not in errors
    (line,) = said(errors)
    assert line.startswith(f"kpac: {source}: cannot be read (No such file or directory); continue from iteration_")
    assert line.endswith(f"with: kpac train --resume {config_file.parent / 'runs' / 'small'}")


def test_killed_worker_ends_the_run_in_one_line(config_file, data):
    def kill_one(run: psutil.Process) -> None:
        run.children()[-1].send_signal(signal.SIGKILL)

    status, errors = disturbed(["-m", "kpac", "train"], config_file, data, kill_one)
    assert status == 2, errors
    assert "Traceback" not in errors
    (line,) = said(errors)
    assert "a data worker was killed by SIGKILL (out of memory?); lower data.workers; continue from iteration_" in line


@pytest.mark.slow
def test_source_that_vanishes_ends_all_processes(config_file, data):
    source = min((data / "train_c" / "source").iterdir())
    status, errors = disturbed(TORCHRUN, config_file, data, lambda _: source.unlink())
    assert status == 1  # torchrun's own
    found = [line for line in said(errors) if line.startswith(f"kpac: {source}: cannot be read")]
    assert found  # both processes may meet it, or one alone before the other is ended
    assert all("with: torchrun ... scripts/train.py --resume" in line for line in found)


@pytest.mark.parametrize(
    ("device", "cores", "workers"), [("cuda", 16, 14), ("cuda", 8, 7), ("cuda", 1, 1), ("cpu", 16, 2), ("cpu", 1, 2)]
)
def test_workers_follow_the_cores_of_a_rank(device, cores, workers):
    assert default_workers(torch.device(device), cores) == workers


def test_ranks_of_a_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert usable_cores() == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert usable_cores() == 4
