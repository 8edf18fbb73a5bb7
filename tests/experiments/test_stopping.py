"""A sweep that is stopped leaves no training behind, one started twice spoils none; results belong to weights."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kpac.experiments import jobs, progress
from kpac.experiments.sweep import Run, load_sweep
from kpac.models.registry import create_model
from kpac.models.weights import save_model, weights_file
from kpac.training.run_folder import RunFolder, in_use

ROOT = Path(__file__).parents[2]
LONG = ["train.iterations=100000", "train.checkpoint.every=5", "validation.every=100000", "validation.samples=0"]


def _wait_for(condition) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _status(process: subprocess.Popen) -> int:
    """The exit status; a process that does not end is killed, so that the test fails instead of waiting for it."""
    try:
        return process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _training(run: Run) -> bool:
    return in_use(run.folder) and any(run.folder.glob("checkpoints/*.pt"))


def _iterations(run: Run) -> set[int]:
    return {int(path.stem.rpartition("_")[2]) for path in run.folder.glob("checkpoints/iteration_*.pt")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_training_of_a_submitted_job_ends_with_the_sweep(sweep_file, number):
    run = load_sweep(sweep_file, LONG).runs[0]
    command = [sys.executable, "-m", "kpac", "ablate", str(sweep_file), *LONG, "--executor", "local"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env=environment) as process:
        _wait_for(lambda: _training(run))
        process.send_signal(number)
        assert _status(process) == 128 + number
    _wait_for(lambda: not in_use(run.folder))
    assert progress.state_of(run) == "begun"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGUSR2, 9), (signal.SIGINT, -signal.SIGINT)])
def test_job_that_is_ended_before_its_time_lets_the_training_save(sweep_file, tmp_path, number, status):
    words = [*LONG, "train.checkpoint.every=100000"]  # no checkpoint but that of the stop
    run = load_sweep(sweep_file, words).runs[0]
    script = tmp_path / "job.py"  # as submitit does: its handler leaves by SystemExit, its cancelling is an interrupt
    script.write_text(
        "import signal, sys\nfrom pathlib import Path\n"
        "from kpac.experiments.jobs import Job\nfrom kpac.experiments.sweep import load_sweep\n"
        "signal.signal(signal.SIGUSR2, lambda *_: sys.exit(9))\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"Job(load_sweep(Path({str(sweep_file)!r}), {words!r}).runs[0])()\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(script)], cwd=ROOT, env=environment) as process:
        log = run.folder / "metrics.jsonl"
        _wait_for(lambda: log.is_file() and log.stat().st_size)
        assert not _iterations(run)
        process.send_signal(number)
        assert _status(process) == status
    assert len(_iterations(run)) == 1
    assert progress.state_of(run) == "begun"


def test_run_that_another_job_trains_is_left_to_it(sweep_file, short):
    run = load_sweep(sweep_file, short).runs[0]
    run.folder.mkdir(parents=True)
    with RunFolder(run.config) as other:
        other.prepare({})
        assert progress.state_of(run) == "running"
        jobs.Job(run)()
        assert not progress.failure_file(run).exists()
    assert progress.state_of(run) == "begun"


def test_results_of_other_weights_do_not_finish_a_run(sweep_file, tmp_path):
    run = load_sweep(sweep_file).runs[0]
    given = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        given.append(tmp_path / f"{seed}.safetensors")
        save_model(create_model("kpac_2level", width=4, blocks=0), given[-1])
    first, second = (replace(run, weights=path) for path in given)
    assert progress.state_of(first) == "trained"
    jobs.Job(first)()
    assert (progress.state_of(first), progress.state_of(second)) == ("finished", "trained")
    jobs.Job(second)()
    results = json.loads((run.evaluations[0].results / "results.json").read_text())
    assert results["model"]["weights"] == str(weights_file(given[1]))
    assert (progress.state_of(first), progress.state_of(second)) == ("trained", "finished")
