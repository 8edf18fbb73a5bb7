"""What `accelerate` returns shares everything with the model, and leaves it alone."""

import copy
import pickle

import pytest
import torch
from torch import nn

from kpac import KPACBlock, Restorer, create_model
from kpac.cpu import accelerate, missing, plain_class
from kpac.cpu.layers import FastBlock, FastNet
from kpac.models.network import KPACNet
from tests.models import golden


@pytest.fixture
def model() -> nn.Module:
    return golden.randomize(create_model("kpac_2level", width=16, blocks=1))


def test_parameters_are_the_same_and_the_model_stays_plain(model):
    quick = accelerate(model)
    assert type(model) is KPACNet
    assert plain_class(quick) is plain_class(model) is KPACNet
    assert list(quick.state_dict()) == list(model.state_dict())
    assert all(one is other for one, other in zip(quick.parameters(), model.parameters(), strict=True))
    assert quick.config == model.config
    assert not any(type(module).__module__.startswith("kpac.cpu") for module in model.modules())
    assert accelerate(quick) is quick


def test_training_one_trains_the_other(model):
    quick, views = accelerate(model), torch.rand(1, 3, 16, 16)
    optimizer = torch.optim.SGD(quick.parameters(), lr=1e-5)
    before = quick(views)
    before.square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        assert (model(views) - before).abs().max() > 1e-2
        torch.testing.assert_close(model(views), quick(views), atol=1e-5, rtol=0)
        model.load_state_dict(create_model("kpac_2level", width=16, blocks=1).state_dict(), assign=True)
        torch.testing.assert_close(model(views), quick(views), atol=1e-5, rtol=0)


def test_hooks_of_the_model_are_called_through_its_view(model):
    seen = []
    quick = accelerate(model)
    model.blocks[0].scale_attention.register_forward_hook(lambda *_: seen.append("scale"))
    model.blocks[0].register_forward_pre_hook(lambda *_: seen.append("block"))
    with torch.no_grad():
        quick(torch.rand(1, 3, 16, 16))
    assert seen == ["block", "scale"]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_view_can_be_copied(model, duplicate):
    quick, views = accelerate(model), torch.rand(1, 3, 16, 16)
    again = duplicate(quick)
    with torch.no_grad():
        assert torch.equal(again(views), quick(views))
        next(again.parameters()).zero_()
        assert not torch.equal(again(views), quick(views))


def test_blocks_in_a_network_of_another_kind_are_accelerated():
    torch.manual_seed(0)
    block = golden.randomize(KPACBlock(32, 16))
    other = nn.Sequential(nn.Conv2d(3, 32, 1), block, nn.Dropout(), block)
    quick = accelerate(other).eval()
    assert type(quick[1]) is FastBlock
    assert quick[3] is quick[1]
    assert quick[0] is other[0]
    with torch.no_grad():
        x = torch.rand(3, 3, 20, 30)
        torch.testing.assert_close(quick(x), other.eval()(x), atol=1e-5, rtol=1e-5)


def test_network_without_known_parts_comes_back_as_it_is():
    other = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    assert accelerate(other) is other


def test_restorer_accelerates_and_leaves_its_model_plain(model):
    assert type(Restorer(model, device="cpu").model) is FastNet
    assert type(Restorer(accelerate(model), tile=64, device="cpu").model) is FastNet  # which can be tiled, too
    assert type(model) is KPACNet


def test_without_numba_the_model_comes_back(model, monkeypatch, caplog):
    monkeypatch.setattr("kpac.cpu.missing", lambda: "No module named 'numba'")
    assert missing() is None
    assert accelerate(model) is model
    assert "kpac[cpu]" in caplog.text
