"""A training learns, is reproducible, and leaves a folder that explains itself."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from kpac.config import load_config
from kpac.data.batches import Batch
from kpac.distributed import Ranks
from kpac.errors import Stopped, UserError
from kpac.images import write_pixels
from kpac.models.registry import create_model, resolve_model
from kpac.models.weights import load_model, read_weights_header, save_model
from kpac.training.trainer import Trainer, train
from tests.conftest import unpacked


def metrics(folder, kind: str) -> list[dict]:
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["kind"] == kind]


def test_run_folder_explains_the_run(config_file):
    folder = train(load_config(config_file))
    assert load_config(folder / "config.yaml").model.options["dilations"] == [1, 2, 3, 4, 5]
    run = json.loads((folder / "run.json").read_text())
    assert run["device"].startswith("CPU")
    assert run["packages"]["torch"] == torch.__version__
    lines = metrics(folder, "train")
    assert [line["iteration"] for line in lines] == [2, 4, 6]
    assert {"loss", "l1", "learning_rate", "images_per_second"} <= set(lines[0])
    assert [line["iteration"] for line in metrics(folder, "val")] == [3, 6]
    assert {"psnr", "ssim", "mae"} <= set(metrics(folder, "val")[0])
    assert list((folder / "tensorboard").glob("events*"))
    assert read_weights_header(folder / "checkpoints" / "last.safetensors")["iteration"] == 6


def test_best_weights_are_those_of_the_best_validation(config_file):
    folder = train(load_config(config_file, ["validation.every=1"]))
    scores = {line["iteration"]: line["psnr"] for line in metrics(folder, "val")}
    header = read_weights_header(folder / "checkpoints" / "best.safetensors")
    assert header["iteration"] == max(scores, key=scores.get)
    assert header["validation"]["psnr"] == max(scores.values())


def test_steps_on_one_batch_learn_it(config_file):
    config = load_config(config_file, ["train.iterations=60", "train.optimizer.learning_rate=1e-2"])
    trainer = Trainer(resolve_model(config), Ranks(0, 1, torch.device("cpu")))
    views = unpacked(trainer.data.crops[0])["views"][None]
    target = 1 - views[:, [1, 2, 0]]  # far from the identity, so that learning shows
    before = trainer.loss(trainer.model(views), target)[0].item()
    for _ in range(60):
        trainer.step(Batch(views, target, start=0, size=1))
    assert trainer.loss(trainer.model(views), target)[0].item() < 0.7 * before


def test_same_seed_gives_the_same_weights(config_file):
    folders = [
        train(load_config(config_file, overrides)) for overrides in (["name=a"], ["name=b"], ["name=c", "seed=1"])
    ]
    first, second, other = (load_model(folder / "checkpoints" / "last.safetensors").state_dict() for folder in folders)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_initial_weights_are_taken(config_file, tmp_path):
    model = create_model("kpac_2level", width=4, blocks=1)
    save_model(model, tmp_path / "start.safetensors")
    overrides = [f"train.initial_weights={tmp_path}/start.safetensors", "train.optimizer.learning_rate=1e-12"]
    trained = load_model(train(load_config(config_file, overrides)))
    for key, value in model.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[key], value)


def test_dual_pixel_network_trains(config_file):
    folder = train(load_config(config_file, ["model.name=kpac_dual", "model.width=4", "train.iterations=2"]))
    assert load_model(folder).views == ("center", "left", "right")


def test_earlier_run_is_kept_unless_replaced(config_file):
    config = load_config(config_file, ["train.iterations=1"])
    folder = train(config)
    before = (folder / "checkpoints" / "last.safetensors").read_bytes()
    with pytest.raises(UserError, match="a run of this name exists"):
        train(load_config(config_file, ["train.iterations=2"]))
    assert (folder / "checkpoints" / "last.safetensors").read_bytes() == before
    train(load_config(config_file, ["train.iterations=2"]), overwrite=True)
    assert read_weights_header(folder / "checkpoints" / "last.safetensors")["iteration"] == 2


def test_interrupt_while_data_workers_start_stops_the_run(config_file):
    forks = []

    def interrupt_once() -> None:  # Python drops what a hook raises, such as a KeyboardInterrupt
        forks.append(os.getpid())
        if len(forks) == 1:
            signal.raise_signal(signal.SIGINT)

    os.register_at_fork(after_in_parent=interrupt_once)
    try:
        with pytest.raises(Stopped, match=r"interrupted after iteration 1; the run is saved"):
            train(load_config(config_file, ["data.workers=1"]))
    finally:
        forks.append(0)  # such hooks cannot be taken back


def test_folder_that_is_no_run_is_never_replaced(config_file, tmp_path):
    (tmp_path / "runs" / "small").mkdir(parents=True)
    (tmp_path / "runs" / "small" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds no config.yaml"):
        train(load_config(config_file), overwrite=True)
    assert (tmp_path / "runs" / "small" / "thesis.tex").read_text() == "years of work"


def test_divergence_is_said_and_leaves_no_best_weights(config_file, tmp_path):
    settings = ["train.optimizer.learning_rate=1e38", "train.iterations=4", "train.skip_limit=2"]
    with pytest.raises(UserError, match=r"iteration 3: the loss or its gradient was not .*try a lower learning rate"):
        train(load_config(config_file, settings))
    assert not list((tmp_path / "runs").rglob("*.safetensors"))


def test_validation_image_too_small_to_be_scored_is_found_before_anything_is_written(config_file, data_root, tmp_path):
    root = shutil.copytree(data_root, tmp_path / "data")
    for path in (root / "val_c").glob("*/*.png"):
        write_pixels(path, np.zeros((6, 40, 3), np.uint16))
    with pytest.raises(UserError, match=r"is 40x6 pixels; SSIM needs 7x7 or more; take it out of the val split"):
        train(load_config(config_file, [f"data.root={root}"]))
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take UTF-8 alone")
def test_images_whose_names_are_not_utf_8_train_and_validate(config_file, data_root, tmp_path):
    root = shutil.copytree(data_root, tmp_path / "data")
    for split in ("train", "val"):
        for folder in (root / f"{split}_c" / "source", root / f"{split}_c" / "target"):
            min(folder.iterdir()).rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    folder = train(load_config(config_file, [f"data.root={root}", "train.iterations=2"]))
    assert (folder / "checkpoints" / "best.safetensors").is_file()
    command = [sys.executable, "-m", "kpac", "data", "check", str(root)]
    checked = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"}, capture_output=True)
    assert rb"caf\udce9.png: has no left view" in checked.stdout


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.crop=96"], "smaller than the training crop"),
        (["train.progressive=[{until: 2, crop: 96, batch_size: 2}]"], "Set train.progressive.0.crop to 80 or less"),
        (
            ["train.progressive=[{until: 2, crop: 16, batch_size: 3}]", "train.accumulate=2"],
            "progressive.0.batch_size: 3",
        ),
        (
            ["train.progressive=[{until: 99, crop: 16, batch_size: 3}]", "train.accumulate=2"],
            "train.progressive.0.batch_size: 3",
        ),
        (["data.root=/nowhere"], "/nowhere: no such folder"),
        (["train.losses={l11: 1}", "data.root=/nowhere"], "no loss is called 'l11'; did you mean 'l1'"),
        (["validation.protocol=dpdd8bit"], "did you mean 'dpdd-8bit'"),
        (["train.initial_weights=gone.safetensors"], "gone.safetensors: no such file or folder"),
    ],
)
def test_mistake_is_found_before_anything_is_written(config_file, tmp_path, overrides, words):
    with pytest.raises(UserError, match=words):
        train(load_config(config_file, overrides))
    assert not (tmp_path / "runs").exists()
