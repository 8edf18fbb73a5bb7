"""Models are shared through torch.hub and the Hugging Face hub's form of a folder."""

from pathlib import Path

import pytest
import torch

import kpac
from tests.models import golden

ROOT = Path(__file__).parents[2]


def test_torch_hub_makes_networks_and_loads_both_kinds_of_weights(tmp_path):
    model = golden.randomize(torch.hub.load(str(ROOT), "kpac_2level", source="local", width=4))
    kpac.save_model(model, tmp_path / "m.safetensors")
    again = torch.hub.load(str(ROOT), "kpac_2level", source="local", weights=str(tmp_path / "m.safetensors"))
    views = torch.rand(1, 3, 8, 8)
    assert torch.equal(again(views), model.eval()(views))
    sample = str(golden.DATA / "2level_small_authors_format.npz")
    assert torch.hub.load(str(ROOT), "kpac_2level", source="local", weights=sample).config["blocks"] == 3
    with pytest.raises(kpac.UserError, match="holds kpac_2level"):
        torch.hub.load(str(ROOT), "kpac_3level", source="local", weights=sample)


def test_hub_folder_round_trips(tmp_path):
    hub = pytest.importorskip("kpac.models.hub", reason="the optional extra 'hub' is not installed")
    model = golden.randomize(kpac.create_model("kpac_dual", width=4))
    hub.HubModel(model).save_pretrained(tmp_path / "shared")
    views = torch.rand(1, 9, 8, 8)
    assert torch.equal(hub.HubModel.from_pretrained(str(tmp_path / "shared"))(views), model(views))
    assert torch.equal(kpac.load_model(tmp_path / "shared")(views), model(views))
