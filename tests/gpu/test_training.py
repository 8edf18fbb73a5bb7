"""Training on CUDA devices: what a CPU cannot show. Skipped where there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kpac.config import load_config
from kpac.distributed import Ranks
from kpac.models.registry import resolve_model
from kpac.models.weights import load_model
from kpac.training.run_folder import resumed_config
from kpac.training.trainer import Trainer, train

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
EXACT = ["train.compute.precision=float32", "train.compute.tf32=false"]
STEPS = ["device=cuda", "train.iterations=4", "train.batch_size=4", "train.schedule.warmup=0", "data.workers=2"]


def trainer(config_file: Path, *overrides: str) -> Trainer:
    config = resolve_model(load_config(config_file, [*STEPS, *overrides]))
    return Trainer(config, Ranks(0, 1, torch.device(config.device)))


def weights(config_file: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """After four steps."""
    made = trainer(config_file, *overrides)
    made.network = made.compute.compile(made.model)
    for batch in made.compute.batches(made.data.batches(0, 0, made.compute.pinned)):
        made.step(batch)
    return {name: value.cpu() for name, value in made.model.state_dict().items()}


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max((one[name] - other[name]).abs().max().item() for name in one)


def test_float32_steps_are_those_of_a_cpu(config_file):
    # Adam moves a weight by up to 2e-3 a step, in a direction that rounding decides where its gradient is nearly zero.
    assert apart(weights(config_file, "device=cpu"), weights(config_file, *EXACT)) < 1e-3


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.compute.precision=bfloat16"],
        ["train.compute.precision=float16"],
        [*EXACT, "train.compute.channels_last=false"],
        [*EXACT, "train.compute.compile=true"],
        [*EXACT, "train.compute.fused_optimizer=false"],
        [*EXACT, "train.compute.prefetch=false"],
    ],
    ids=lambda overrides: " ".join(word.removeprefix("train.compute.") for word in overrides) or "defaults",
)
def test_every_way_to_compute_takes_about_the_same_steps(config_file, overrides):
    assert apart(weights(config_file, *EXACT), weights(config_file, *overrides)) < 8e-3  # four steps of 2e-3


def test_defaults_on_a_gpu_are_the_fast_ones(config_file):
    chosen = trainer(config_file).compute.describe()
    bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    assert chosen.pop("precision") == ("bfloat16" if bfloat16 else "float32")
    off = {"compile", "cuda_graphs", "deterministic", "accelerate"}
    assert {name: value for name, value in chosen.items() if not value} == dict.fromkeys(off, False)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_step_does_not_wait_for_the_device(config_file, precision):
    made = trainer(config_file, f"train.compute.precision={precision}", "train.ema_decay=0.9", "train.accumulate=2")
    batches = made.compute.batches(made.data.batches(0, 0, made.compute.pinned))
    made.step(next(batches))  # the first step makes the optimizer's state
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            made.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert made.skipped_steps.read().longest <= 1  # float16 may begin with too large a scale


def test_resumed_run_ends_close_to_the_whole_one(config_file):
    folder = train(
        load_config(config_file, [*STEPS, *EXACT, "train.checkpoint={every: 1, keep: 9}", "train.ema_decay=0.5"])
    )
    whole = load_model(folder / "checkpoints" / "last.safetensors").state_dict()
    for iteration in (3, 4):
        (folder / "checkpoints" / f"iteration_000000{iteration}.pt").unlink()
    train(resumed_config(folder, None, []), resume=True)
    resumed = load_model(folder / "checkpoints" / "last.safetensors").state_dict()
    assert apart(whole, resumed) < 1e-3  # convolutions add in an order of their own
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(line["gpu_memory_gb"] > 0 for line in lines if line["kind"] == "train")


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.gpu(devices=2))])
def test_nccl_trains_the_model_that_one_process_trains(config_file, tmp_path, processes):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += [str(ROOT / "scripts" / "train.py"), str(config_file), *STEPS, *EXACT, "name=nccl"]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    train(load_config(config_file, [*STEPS, *EXACT, "name=one"]))
    one, nccl = (load_model(tmp_path / "runs" / name / "checkpoints" / "last.safetensors") for name in ("one", "nccl"))
    assert apart(one.state_dict(), nccl.state_dict()) < 1e-3
