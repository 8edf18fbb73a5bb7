"""torchrun works with the thin launcher: the same weights, the same scores, and a death that is no end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from kpac.config import load_config
from kpac.data.dataset import SceneDataset
from kpac.data.layouts import find_scenes
from kpac.distributed import Ranks
from kpac.evaluation.protocols import find_protocol
from kpac.models.registry import create_model
from kpac.models.weights import load_model, read_weights_header
from kpac.training.checkpoint import read_checkpoint
from kpac.training.trainer import train
from kpac.training.validation import validate

ROOT = Path(__file__).parents[2]


def torchrun(
    *arguments: object,
    restarts: int = 0,
    timeout: float = 300,
    ranks: int = 2,
    script: str = "scripts/train.py",
    **environment: object,
) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command += [f"--max-restarts={restarts}", str(ROOT / script), *map(str, arguments)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in environment.items()}}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=timeout, cwd=ROOT)


@pytest.fixture
def three_scenes(data_root, tmp_path) -> Path:
    """The data set with three validation scenes, which two processes cannot share evenly."""
    root = shutil.copytree(data_root, tmp_path / "data")
    for images in ("source", "target"):
        chosen = min((root / "train_c" / images).iterdir())
        shutil.copy(chosen, root / "val_c" / images / f"added {chosen.name}")
    return root


def test_two_processes_train_and_score_the_model_that_one_trains(config_file, three_scenes, tmp_path):
    settings = [f"data.root={three_scenes}", "train.batch_size=4", "train.iterations=20", "train.accumulate=2"]
    settings.append("train.schedule.warmup=0")
    finished = torchrun(config_file, *settings, "name=two")
    assert finished.returncode == 0, finished.stderr
    train(load_config(config_file, [*settings, "name=one"]))
    runs = tmp_path / "runs"
    one, two = (load_model(runs / name / "checkpoints" / "last.safetensors").state_dict() for name in ("one", "two"))
    torch.manual_seed(load_config(config_file).seed)
    start = create_model("kpac_2level", **load_config(config_file).model.options).state_dict()
    moved = max((one[key] - start[key]).abs().max().item() for key in one)
    apart = max((one[key] - two[key]).abs().max().item() for key in one)
    # The two add the same gradients in another order, which changes the last of 24 bits. Adam divides a gradient by its
    # own size, so that a weight whose gradient is nearly zero moves by such an error. Found: 5e-7 apart, 1.6e-2 moved.
    assert moved > 1e-2
    assert apart < 1e-5
    logs = [(runs / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")]
    losses = [[entry["loss"] for line in log if (entry := json.loads(line))["kind"] == "train"] for log in logs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)

    weights = runs / "two" / "checkpoints" / "last.safetensors"
    scenes = SceneDataset(find_scenes(three_scenes, "val"), bit_depth=8)
    assert len(scenes) == 3
    protocol = find_protocol(load_config(config_file).validation.protocol)
    alone = validate(load_model(weights), scenes, protocol, Ranks(0, 1, torch.device("cpu")), samples=0)
    assert read_weights_header(weights)["validation"] == pytest.approx(alone.scores, rel=1e-6)


def test_run_that_lost_a_process_restarts_and_ends_with_the_same_bits(noisy_config, tmp_path):
    whole = torchrun(noisy_config, "name=whole")
    assert whole.returncode == 0, whole.stderr
    killed = torchrun(noisy_config, "name=killed", restarts=1, DIE_AT=15)  # two passes a step: in step 8
    assert killed.returncode == 0, killed.stderr
    assert killed.stderr.count("rank 1 is killed") == 1  # torchrun may name the other, which loses its partner, first
    runs = tmp_path / "runs"
    resumed = json.loads((runs / "killed" / "run.json").read_text())["resumed"]
    assert [part["iteration"] for part in resumed] == [6]
    contents = [(runs / name / "checkpoints" / "last.safetensors").read_bytes() for name in ("whole", "killed")]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_signal_ends_all_processes_at_the_same_step_and_saves(config_file, tmp_path, number):
    folder = tmp_path / "runs" / "small"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "scripts" / "train.py"), str(config_file), "train.iterations=100000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as launcher:
        while launcher.poll() is None and not list(folder.glob("checkpoints/*.pt")):
            time.sleep(0.05)
        launcher.send_signal(number)
        errors = launcher.communicate(timeout=120)[1]
    lines = [line for line in errors.splitlines() if line.startswith("kpac: stopped by ")]
    assert len(lines) == 1
    done = int(lines[0].removeprefix(f"kpac: stopped by {number.name} after iteration ").split(";")[0])
    assert lines[0].endswith(f"; the run is saved; continue with: torchrun ... scripts/train.py --resume {folder}")
    state = read_checkpoint(folder / "checkpoints" / f"iteration_{done:07d}.pt")
    assert (state["iteration"], state["position"], len(state["random"])) == (done, 2 * done, 2)


def test_process_that_dies_takes_the_run_down_within_a_minute(noisy_config, tmp_path):
    died = torchrun(noisy_config, "train.iterations=100000", DIE_AT=9, timeout=60)
    assert died.returncode == 1
    assert max((tmp_path / "runs" / "noisy" / "checkpoints").glob("iteration_*.pt")).name == "iteration_0000004.pt"


def test_restart_leaves_another_runs_folder_alone(config_file, tmp_path):
    folder = train(load_config(config_file, ["train.iterations=1"]))
    before = (folder / "checkpoints" / "last.safetensors").read_bytes()
    refused = torchrun(config_file, "train.iterations=3", restarts=1)
    assert refused.returncode != 0
    assert refused.stderr.count("a run of this name exists") == 2  # the first attempt, and the restart
    assert (folder / "checkpoints" / "last.safetensors").read_bytes() == before


def test_batch_that_does_not_divide_is_refused_in_one_line(config_file, tmp_path):
    finished = torchrun(config_file, "train.batch_size=6", "train.accumulate=2")
    assert finished.returncode != 0
    words = "train.batch_size: 6 does not divide among 2 ranks times 2 steps (train.accumulate); "
    words += "expected a multiple of 4"
    assert [line for line in finished.stderr.splitlines() if "kpac:" in line] == [f"kpac: {words}"]
    assert not (tmp_path / "runs").exists()


def test_gradients_are_added_in_the_order_of_the_parameters_at_every_step(monkeypatch):
    """DistributedDataParallel goes over to the order in which they become ready, after the first step of a process."""
    sent = []

    def all_reduce(values: torch.Tensor) -> None:
        sent.append(values.clone())
        values *= 2  # the other rank has the same

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)).to(memory_format=torch.channels_last)
    ranks = Ranks(0, 2, torch.device("cpu"), control=object())
    for step in range(3):
        gradients = [torch.full_like(parameter, place + step) for place, parameter in enumerate(model.parameters())]
        for parameter, gradient in reversed([*zip(model.parameters(), gradients, strict=True)]):
            parameter.grad = gradient.clone()
        ranks.average_gradients(model)
        assert torch.equal(sent[step], torch.cat([gradient.flatten() for gradient in gradients]) / 2)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            assert torch.equal(parameter.grad, gradient)
            assert parameter.grad.stride() == parameter.stride()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [3, 4])
def test_resumed_run_of_several_ranks_is_bit_identical(config_file, tmp_path, ranks):
    """Sums of three and more gradients depend on their order, which must not change between a start and a resumption.

    The network has enough parameters for the order to matter.
    """
    path = tmp_path / "ranks.yaml"
    settings = f"iterations: 10, batch_size: {2 * ranks}, accumulate: 2, schedule: {{name: constant}}"
    path.write_text(f"extends: {config_file}\ntrain: {{{settings}}}\nmodel: {{width: 8}}\nvalidation: {{every: 100}}\n")
    done = torchrun("resume", path, ranks=ranks, script="tests/training/ranks.py")
    assert done.returncode == 0, done.stderr
    runs = tmp_path / "runs"
    whole, resumed = ((runs / name / "checkpoints" / "last.safetensors").read_bytes() for name in ("whole", "whole-5"))
    assert whole == resumed


def test_rank_that_fails_alone_ends_all_of_them_soon(config_file):
    failed = torchrun("fail", config_file, "train.iterations=100000", script="tests/training/ranks.py", timeout=120)
    assert failed.returncode == 1
    assert time.time() - float(failed.stderr.split("rank 1 fails at ")[1].split()[0]) < 60
    assert failed.stderr.count("RuntimeError: only this rank") == 1
