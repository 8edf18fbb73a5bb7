"""What a CUDA device gives agrees with a CPU, to the bit where that was asked for. Skipped where there is none."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import vgg19

import kpac
from kpac.config import load_config
from kpac.data.batches import PackedPixels
from kpac.data.dataset import SceneDataset
from kpac.data.layouts import find_scenes
from kpac.distributed import Ranks
from kpac.evaluation.evaluator import evaluate
from kpac.images import to_float
from kpac.models.registry import resolve_model
from kpac.models.weights import load_model
from kpac.precision import full_float32
from kpac.restore.export import export_model
from kpac.training.losses import LOSSES, WeightedLoss
from kpac.training.perceptual import LAYERS
from kpac.training.run_folder import resumed_config
from kpac.training.trainer import Trainer, train
from tests.conftest import ROOT
from tests.models.golden import randomize

pytestmark = pytest.mark.gpu
GPU, CPU = torch.device("cuda"), torch.device("cpu")
EXACT = ["train.compute.precision=float32", "train.compute.tf32=false"]
STEPS = ["train.batch_size=4", "train.schedule={name: constant, warmup: 0}", "data.workers=1"]
STEPS.append("validation.every=100000")
STAGES = "train.progressive=[{until: 3, crop: 16, batch_size: 8}]"


def run(config_file: Path, name: str, *words: str) -> Path:
    return train(load_config(config_file, [*STEPS, f"name={name}", *words]))


def resume(folder: Path, *words: str) -> Path:
    return train(resumed_config(folder, None, list(words)), resume=True, allow_changes=True)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder / "checkpoints" / "last.safetensors").state_dict()


def apart(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    return max((first[name] - second[name]).abs().max().item() for name in first)


@pytest.mark.parametrize(("first", "second"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_run_goes_on_on_another_device(config_file, first, second):
    words = [*EXACT, f"device={first}"]
    whole = run(config_file, "whole", *words, "train.iterations=8")
    half = run(config_file, "half", *words, "train.iterations=4")
    resume(half, f"device={second}", "train.iterations=8")
    assert apart(whole, half) < 1e-3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("more", [[], ["train.accumulate=2", STAGES, "train.ema_decay=0.9"]], ids=["plain", "all"])
def test_deterministic_run_resumes_to_the_same_bits(config_file, precision, more):
    words = ["device=cuda", f"train.compute.precision={precision}", "train.compute.deterministic=true", *more]
    whole = run(config_file, "whole", *words, "train.iterations=12")
    half = run(config_file, "half", *words, "train.iterations=6")
    resume(half, "train.iterations=12")
    contents = [(folder / "checkpoints" / "last.safetensors").read_bytes() for folder in (whole, half)]
    assert contents[0] == contents[1]


def test_run_on_cuda_graphs_is_the_eager_one(config_file):
    words = [*EXACT, "device=cuda", "train.iterations=8", "train.accumulate=2", "train.ema_decay=0.9", STAGES]
    eager = run(config_file, "eager", *words)
    graphs = run(config_file, "graphs", *words, "train.compute.compile=true", "train.compute.cuda_graphs=true")
    assert apart(eager, graphs) < 1e-3


def test_graphs_skip_steps_that_are_not_finite(config_file):
    words = [*STEPS, "device=cuda", "train.compute.compile=true", "train.compute.cuda_graphs=true", "data.workers=0"]
    trainer = Trainer(resolve_model(load_config(config_file, words)), Ranks(0, 1, GPU))
    trainer.network = trainer.compute.compile(trainer.model)
    batch = next(trainer.compute.batches(trainer.data.batches(0, 0, trainer.compute.pinned)))
    bad = replace(batch, target=batch.target * torch.nan)
    for step in (batch, batch, batch):  # the third one is a replay
        trainer.step(step)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.step(bad)
    assert all(map(torch.equal, before, trainer.model.parameters()))
    trainer.step(batch)
    assert not all(map(torch.equal, before, trainer.model.parameters()))
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    assert trainer.skipped_steps.read().total == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_become_the_floats_that_they_stand_for(dtype):
    values = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    image = np.stack([values] * 3, axis=-1).reshape(16, -1, 3)
    found = PackedPixels.pack([[image]]).pin_memory().unpack(GPU, torch.channels_last)
    np.testing.assert_array_equal(found[0].permute(1, 2, 0).cpu(), to_float(image))


def test_evaluation_is_that_of_a_cpu(data_root):
    model = randomize(kpac.create_model("kpac_2level", width=16, blocks=1))
    scenes = SceneDataset(find_scenes(data_root, "val"), bit_depth=8)
    torch.backends.cudnn.allow_tf32 = True  # as PyTorch starts
    cpu, gpu = (next(iter(evaluate(model.to(device), [scenes[0]], device))).scores for device in (CPU, GPU))
    assert gpu["psnr"] == pytest.approx(cpu["psnr"], abs=1e-4)
    assert gpu["ssim"] == pytest.approx(cpu["ssim"], abs=1e-5)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_loss_is_that_of_a_cpu(name, dtype, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "vgg.pth"
    state = vgg19(weights=None).features[:LAYERS].state_dict()
    torch.save({f"features.{key}": value for key, value in state.items()}, path)
    output, target = torch.rand(2, 2, 3, 32, 32)
    values = []
    for device in (CPU, GPU):
        loss = WeightedLoss({name: 1.0}, path, dtype).to(device, memory_format=torch.channels_last)
        given = output.detach().to(device, copy=True).requires_grad_()
        value, _ = loss(given, target.to(device))
        value.backward()
        assert given.grad.isfinite().all()
        values.append(value.item())
    assert values[1] == pytest.approx(values[0], rel=1e-4 if dtype is torch.float32 or name != "perceptual" else 2e-2)


def test_deterministic_training_has_every_loss_but_the_perceptual_one(config_file):
    names = sorted(LOSSES.keys() - {"perceptual"})
    losses = "{" + ", ".join(f"{name}: 0.1" for name in names) + "}"
    words = ["device=cuda", "train.iterations=2", "train.compute.deterministic=true", f"train.losses={losses}"]
    assert run(config_file, "losses", *words).is_dir()


def test_exported_file_runs_on_the_gpu(tmp_path):
    model = randomize(kpac.create_model("kpac_2level", width=4, blocks=1))
    export_model(model, tmp_path / "m.pt2")
    module = torch.export.load(tmp_path / "m.pt2").module().to(GPU)
    views = torch.rand(1, 3, 37, 50)
    with torch.no_grad(), full_float32():
        torch.testing.assert_close(module(views.to(GPU)).cpu(), model(views), atol=1e-4, rtol=0)


@pytest.mark.parametrize("tile", [None, 512])
def test_restoring_takes_no_more_memory_than_estimated(tile):
    restorer = kpac.Restorer(kpac.create_model("kpac_2level"), tile=tile, precision="float32", device="cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    restorer(np.zeros((1120, 1680, 3), np.float32))
    assert torch.cuda.max_memory_reserved() <= restorer.estimate_bytes(1120, 1680, tile)


def test_sigterm_saves_the_run(config_file, tmp_path):
    folder = tmp_path / "runs" / "term"
    words = [*STEPS, "device=cuda", "name=term", "train.iterations=1000000", "train.checkpoint.every=20"]
    command = [sys.executable, "-m", "kpac", "train", str(config_file), *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ)) as process:
        while process.poll() is None and not list(folder.glob("checkpoints/*.pt")):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert "the run is saved" in errors


@pytest.mark.parametrize("left", [1, 3])
def test_run_without_room_on_the_card_ends_in_one_line(config_file, left):
    held = torch.empty(torch.cuda.mem_get_info()[0] - (left << 30), dtype=torch.uint8, device=GPU)  # leaves so many GB
    words = [*STEPS, "device=cuda", "train.batch_size=256", "train.iterations=1", "model.width=256", "data.workers=0"]
    command = [sys.executable, "-m", "kpac", "train", str(config_file), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ), timeout=120)
    del held
    torch.cuda.empty_cache()
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "out of memory" in done.stderr
