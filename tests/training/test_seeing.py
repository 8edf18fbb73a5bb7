"""What a run shows while it trains and leaves behind."""

import json
import sys
import threading
import types

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kpac.config import load_config
from kpac.data import read_ahead
from kpac.data.dataset import Scene, SceneDataset
from kpac.data.layouts import find_scenes
from kpac.distributed import Ranks
from kpac.errors import UserError
from kpac.evaluation.protocols import find_protocol
from kpac.models.registry import create_model
from kpac.training.trainer import train
from kpac.training.validation import PICTURE, small, validate

ALONE = Ranks(0, 1, torch.device("cpu"))


def test_tensorboard_has_the_numbers_the_pictures_and_the_attention_maps(config_file):
    folder = train(load_config(config_file, ["train.iterations=2"]))
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    scalars = {"loss", "l1", "gradient_norm", "learning_rate", "images_per_second", "data_wait", "skipped"}
    assert {f"train/{name}" for name in scalars} | {"val/psnr", "val/ssim", "val/mae"} <= set(events.Tags()["scalars"])
    pictures = events.Tags()["images"]
    assert "attention/blocks.0.scale_attention" in pictures
    assert len([name for name in pictures if name.startswith("val/")]) == 2
    image = events.Images("attention/blocks.0.scale_attention")[0]
    assert (image.height, image.width) == (20, 5 * 28)  # five dilations, at a quarter of 80x112
    step = events.Images(next(name for name in pictures if name.startswith("val/")))[0]
    assert (step.height, step.width) == (80, 3 * 112)  # input, output, target


def test_attention_maps_are_those_of_the_first_scene_and_leave_no_hooks(data_root):
    torch.manual_seed(0)
    model = create_model("kpac_2level", width=4, blocks=2)
    scenes = SceneDataset(find_scenes(data_root, "val"), bit_depth=8)
    attention = model.blocks[1].scale_attention
    seen = []
    handle = attention.register_forward_hook(lambda _, __, output: seen.append(output[0]))
    pictures = validate(model, scenes, find_protocol("dpdd-8bit"), ALONE, samples=1).pictures
    handle.remove()
    assert torch.equal(pictures["attention/blocks.1.scale_attention"], torch.cat([*seen[0][:, None]], dim=2))
    assert not any(module._forward_hooks for module in model.modules())
    assert [name for name in pictures if name.startswith("val/")] == [f"val/{scenes[0].name}"]


def test_large_pictures_are_reduced():
    assert small(torch.rand(3, 2 * PICTURE, PICTURE)).shape == (3, PICTURE, PICTURE // 2)
    assert small(torch.full((3, 8, 8), 1.5)).max() == 1


def test_run_json_tells_the_data_apart_wherever_they_lie(config_file, data_root, tmp_path):
    import shutil

    moved = shutil.copytree(data_root, tmp_path / "moved")
    facts = []
    for name in ("here", "there", "fewer"):
        root = data_root if name == "here" else moved
        if name == "fewer":
            for images in ("source", "target"):
                min((moved / "train_c" / images).iterdir()).unlink()
        folder = train(load_config(config_file, [f"name={name}", f"data.root={root}", "train.iterations=1"]))
        facts.append(json.loads((folder / "run.json").read_text())["data"])
    assert facts[0]["train"]["scenes"] == 8
    assert facts[0] == facts[1]
    assert facts[2]["train"]["sha256"] != facts[1]["train"]["sha256"]
    assert facts[2]["val"] == facts[1]["val"]


def test_without_a_terminal_there_is_one_line_for_every_report(config_file, capfd):
    train(load_config(config_file))
    captured = capfd.readouterr()
    assert captured.out == ""
    train_split, val_split, *lines = captured.err.splitlines()
    assert train_split.startswith("kpac: decoding 16 images into ")
    assert val_split.startswith("kpac: decoding 4 images into ")
    assert [line.split(":")[1].strip() for line in lines] == ["2/6", "3/6", "3/6", "4/6", "6/6", "6/6", "6/6"]
    assert all(word in lines[0] for word in ("loss ", "rate ", " images/s", "data ", " left"))


def test_profile_is_a_trace_of_steps(config_file):
    folder = train(load_config(config_file, ["train.profile=true", "train.iterations=12", "validation.every=12"]))
    events = json.loads((folder / "profile" / "trace.json").read_text())["traceEvents"]
    steps = {event["name"] for event in events if str(event.get("name", "")).startswith("ProfilerStep#")}
    assert steps == {f"ProfilerStep#{step}" for step in range(5, 10)}
    assert any("convolution" in event.get("name", "") for event in events)


def test_wandb_gets_the_numbers_where_it_is_installed(config_file, monkeypatch):
    sent = []
    run = types.SimpleNamespace(log=lambda values, step: sent.append((step, values)), finish=lambda: sent.append("end"))
    module = types.ModuleType("wandb")
    module.init = lambda **settings: sent.append(settings) or run
    module.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "wandb", module)
    folder = train(load_config(config_file, ["train.wandb=defocus", "train.iterations=2"]))
    assert (sent[0]["project"], sent[0]["name"], sent[0]["dir"]) == ("defocus", "small", folder)
    assert sent[1][0] == 2
    assert "train/loss" in sent[1][1]
    assert "val/psnr" in sent[2][1]
    assert sent[-1] == "end"


def test_wandb_that_is_not_installed_is_said_in_one_line(config_file, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        UserError, match=r"train.wandb: the package wandb is not installed; pip install 'kpac\[wandb\]'"
    ):
        train(load_config(config_file, ["train.wandb=defocus"]))
    assert not (tmp_path / "runs").exists()


def test_validation_reads_several_scenes_at_once(monkeypatch, data_root):
    files = find_scenes(data_root, "val")
    together = threading.Barrier(len(files))
    read = SceneDataset.__getitem__

    def slow(self: SceneDataset, index: int) -> Scene:
        together.wait(timeout=30)  # breaks where one scene is read after the other
        return read(self, index)

    monkeypatch.setattr(SceneDataset, "__getitem__", slow)
    monkeypatch.setattr(read_ahead, "usable_cores", lambda: len(files))
    model = create_model("kpac_2level", width=4, blocks=0)
    validated = validate(model, SceneDataset(files, bit_depth=8), find_protocol("dpdd-8bit"), ALONE, samples=0)
    assert validated.scores["psnr"] > 0
