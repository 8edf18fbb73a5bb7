"""Weights files hold what makes a model, and nothing else is accepted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from kpac import UserError, create_model, load_model, register, save_model
from kpac.commands.remedies import explain
from kpac.models import registry, weights
from tests.models import golden


@pytest.fixture
def own_network() -> Iterator[str]:
    @register("own")
    class Own(nn.Module):
        def __init__(self, gain: float = 1.0):
            super().__init__()
            self.views = ("center",)
            self.gain = nn.Parameter(torch.tensor(gain))

        def forward(self, views: Tensor) -> Tensor:
            return views * self.gain

    yield "own"
    del registry._networks["own"]


@pytest.mark.parametrize("name", ["kpac_2level", "kpac_3level", "kpac_dual"])
def test_loaded_model_computes_what_the_saved_one_did(tmp_path, name):
    model = golden.randomize(create_model(name, width=4, blocks=1, dilations=[1, 4]))
    save_model(model, tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors")
    views = torch.rand(1, 3 * len(model.views), 9, 10)
    assert torch.equal(loaded(views), model(views))
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in model.state_dict().items())
    assert loaded.config == model.config
    assert not loaded.training


def test_network_of_a_user_joins_with_one_registration(tmp_path, own_network):
    save_model(create_model(own_network, gain=2.5), tmp_path / "m.safetensors")
    assert load_model(tmp_path / "m.safetensors")(torch.ones(1, 3, 1, 1)).max() == 2.5
    with pytest.raises(UserError, match=r"did you mean 'model\.gain'"):
        create_model(own_network, gian=1)


def test_name_can_be_registered_once(own_network):
    with pytest.raises(ValueError, match="registered already"):
        register(own_network)(nn.Module)


def test_weights_of_another_width_are_refused_with_both_shapes(tmp_path):
    path = tmp_path / "narrow.safetensors"
    save_model(create_model("kpac_2level", width=4), path)
    with pytest.raises(UserError) as error:
        weights.load_weights(create_model("kpac_2level", width=8), path)
    for words in (str(path), "encoder.0.0.weight", "(8, 3, 5, 5)", "(4, 3, 5, 5)", "width 4", "width 8"):
        assert words in str(error.value)


def test_truncated_file_is_named(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(create_model("kpac_2level", width=4), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"m.safetensors: not a whole .safetensors file"):
        load_model(path)


def test_foreign_file_is_named(tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match=r"without a 'kpac' header"):
        load_model(tmp_path / "foreign.safetensors")


def test_missing_file_and_empty_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"gone.safetensors: no such file"):
        load_model(tmp_path / "gone.safetensors")
    with pytest.raises(UserError, match=r"checkpoints/best.safetensors"):
        load_model(tmp_path)


def test_failed_save_keeps_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    model = create_model("kpac_2level", width=4)
    save_model(model, path)
    before = path.read_bytes()

    def fill_the_disk(self: Path, content: bytes) -> None:
        self.open("wb").write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_the_disk)
    with pytest.raises(UserError, match="No space left on device"):
        save_model(model, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_save_to_an_impossible_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"m.safetensors: cannot be written"):
        save_model(create_model("kpac_2level", width=4), tmp_path / "file" / "m.safetensors")


def test_file_of_an_unknown_network_names_the_file_and_the_way_out(tmp_path, own_network):
    save_model(create_model(own_network), tmp_path / "m.safetensors")
    network = registry._networks.pop(own_network)
    with pytest.raises(UserError, match=r"m.safetensors: model.name: no network is called 'own'") as error:
        load_model(tmp_path / "m.safetensors")
    assert "needs --plugin FILE" in explain(error.value)
    registry._networks[own_network] = network


@pytest.mark.parametrize("views", [None, ("left", "right"), ("center", "top")])
def test_network_without_known_views_is_refused(views):
    @register("blind")
    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            if views:
                self.views = views

    try:
        with pytest.raises(ValueError, match="attribute 'views'"):
            create_model("blind")
    finally:
        del registry._networks["blind"]
