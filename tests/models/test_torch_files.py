"""Training checkpoints and state dicts are weights, too."""

import shutil
from pathlib import Path

import pytest
import torch

from kpac import create_model, load_model
from kpac.cli import main
from kpac.config import load_config
from kpac.errors import UserError
from kpac.models.weights import load_weights, read_weights_header
from kpac.training.trainer import train


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    tensors = other.state_dict()
    return all(torch.equal(value, tensors[key]) for key, value in one.state_dict().items())


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return create_model("kpac_2level", width=4, blocks=1)


@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
@pytest.mark.parametrize("inside", [None, "state_dict", "params"])
def test_state_dict_is_read(network, tmp_path, prefix, inside, caplog):
    state = {prefix + name: value for name, value in network.state_dict().items()}
    torch.save({inside: state, "epoch": 3} if inside else state, tmp_path / "mine.pth")
    assert same(network, load_model(tmp_path / "mine.pth"))
    assert "loaded as the network kpac_2level, width 4, blocks 1" in caplog.text


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("kpac_2level", {"blocks": 3, "kernel_size": 3}),
        ("kpac_3level", {"share_kernel": False}),
        ("kpac_dual", {"scale_attention": False}),
        ("kpac_2level", {"shape_attention": False}),
        ("kpac_2level", {"block": "plain"}),
        ("kpac_2level", {"blocks": 0}),
    ],
)
def test_network_is_told_from_its_tensors(tmp_path, name, options):
    model = create_model(name, width=8, **options)
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    found = load_model(tmp_path / "mine.pth")
    assert found.config == model.config
    assert same(model, found)


def test_checkpoint_of_a_training_gives_its_average(config_file, tmp_path, capsys):
    folder = train(load_config(config_file, ["train.iterations=3", "validation.every=3", "train.ema_decay=0.9"]))
    checkpoint = folder / "checkpoints" / "iteration_0000003.pt"
    assert same(load_model(folder / "checkpoints" / "last.safetensors"), load_model(checkpoint))
    assert read_weights_header(checkpoint)["iteration"] == 3
    fresh = create_model("kpac_2level", width=4, blocks=1)
    load_weights(fresh, checkpoint)
    assert same(load_model(checkpoint), fresh)
    assert main(["info", str(checkpoint), "--size", "32x32"]) == 0
    copy = shutil.copy(checkpoint, tmp_path / "copy.pt")
    content = bytearray(Path(copy).read_bytes())
    content[len(content) // 2] ^= 1
    Path(copy).write_bytes(content)
    assert main(["info", str(copy)]) == 2
    assert "copy.pt: damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"lr": 0.1}, "neither a training checkpoint of kpac nor a state dict|no architecture of spandrel"),
        ({"conv.weight": torch.zeros(3)}, "a state dict of an unknown network|no architecture of spandrel"),
        ([1, 2], "neither|expected a state dict"),
        (print, "Nothing in it was executed"),
    ],
)
def test_foreign_files_are_one_line(tmp_path, content, words):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=words):
        load_model(tmp_path / "x.pth")


def test_state_dict_of_other_dilations_is_refused(tmp_path):
    torch.save(create_model("kpac_2level", width=4, dilations=(1, 2)).state_dict(), tmp_path / "x.pth")
    with pytest.raises(UserError, match="does not name its 2 dilations"):
        load_model(tmp_path / "x.pth")


def test_text_is_no_weights(tmp_path):
    (tmp_path / "x.pt").write_text("hello")
    with pytest.raises(UserError, match=r"x.pt: damaged, or not a weights file"):
        load_model(tmp_path / "x.pt")
