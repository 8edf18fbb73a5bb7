"""The SLURM script starts a run, continues it, and goes back into the queue when its time is up."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "slurm_train.sh"
# As SLURM's own: SIGTERM makes srun kill its step, and scancel reaches the processes of a step.
SRUN = """
echo "$@" >> srun.log
echo "cpus $SRUN_CPUS_PER_TASK" >> srun.log
bash -c 'trap "echo saved >> srun.log; exit 143" TERM; sleep "${SECONDS_OF_TRAINING:-0}" & wait' &
echo "$!" > step.pid
trap 'kill -KILL "$(cat step.pid)"; exit 137' TERM
wait "$!"
"""
SCANCEL = """
echo "$@" >> scancel.log
if [ "$1 $2" = "--signal=TERM 42.0" ]; then kill -TERM "$(cat step.pid)"; fi
"""
SCONTROL = """
echo "$@" >> scontrol.log
if [ "$1" = show ]; then printf "node7\\nnode8\\n"; fi
"""
COMMANDS = {"srun": SRUN, "scancel": SCANCEL, "scontrol": SCONTROL}


@pytest.fixture
def cluster(tmp_path) -> Path:
    """A folder with an environment, and commands that write down what SLURM's would do."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    for name, text in COMMANDS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    return tmp_path


def start(cluster: Path, seconds: int = 0) -> subprocess.Popen:
    job = {"SLURM_JOB_ID": "42", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_NUM_NODES": "2"}
    job["SLURM_CPUS_PER_TASK"] = "64"
    path = f"{cluster / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, **job, "PATH": path, "SECONDS_OF_TRAINING": str(seconds)}
    return subprocess.Popen([shutil.which("bash"), SCRIPT], cwd=cluster, env=environment)


def test_first_start_trains_the_configuration_on_all_nodes(cluster):
    assert start(cluster).wait(60) == 0
    words = (cluster / "srun.log").read_text().split()
    assert words[0] == "torchrun"
    assert words[-2:] == ["cpus", "64"]
    assert {"--nnodes=2", "--rdzv-id=42", "--rdzv-endpoint=node7:29500"} <= set(words)
    assert words[words.index("scripts/train.py") + 1 :][:2] == ["configs/paper/kpac_2level.yaml", "name=paper_2level"]
    assert "requeue" not in (cluster / "scontrol.log").read_text()


def test_later_start_continues_the_run(cluster):
    (cluster / "runs" / "paper_2level" / "checkpoints").mkdir(parents=True)
    (cluster / "runs" / "paper_2level" / "checkpoints" / "iteration_0001000.pt").touch()
    assert start(cluster).wait(60) == 0
    assert (cluster / "srun.log").read_text().split()[-5:-2] == ["scripts/train.py", "--resume", "runs/paper_2level"]


def test_training_saves_itself_at_the_end_of_the_time_and_the_job_is_queued_again(cluster):
    job = start(cluster, seconds=60)
    end = time.monotonic() + 30
    while not (cluster / "step.pid").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.5)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 143
    assert (cluster / "srun.log").read_text().splitlines()[-1] == "saved"
    assert (cluster / "scontrol.log").read_text().splitlines()[-1] == "requeue 42"
