"""Baselines of the field train in this harness, from configurations and in one sweep beside KPAC."""

import itertools
from pathlib import Path

import pytest
import torch

import kpac
from kpac.config import load_config
from kpac.errors import UserError
from kpac.experiments.sweep import load_sweep
from kpac.models.registry import config_schema, model_names, resolve_model
from kpac.training.losses import check_losses

CONFIGS = Path(__file__).parents[2] / "configs" / "baselines"
SMALL = {
    "dpdnet": {"width": 4},
    "dpdnet_dual": {"width": 4},
    "nafnet": {"width": 4, "encoder_blocks": [1, 1], "decoder_blocks": [1, 1]},
}


def make(name: str) -> torch.nn.Module:
    if name == "nafnet":
        pytest.importorskip("spandrel")
    torch.manual_seed(0)
    return kpac.create_model(name, **SMALL[name])


@pytest.mark.parametrize("name", SMALL)
def test_baseline_takes_any_size_learns_and_comes_back_from_its_file(name, tmp_path):
    model = make(name)
    views = torch.rand(2, 3 * len(model.views), 21, 34)
    target = torch.rand(2, 3, 21, 34)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = (model(views) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[4:]) < losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())
    kpac.save_model(model, tmp_path / "model.safetensors")
    loaded = kpac.load_model(tmp_path / "model.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(loaded(views), model.eval()(views))


def test_dpdnet_has_the_published_layers_and_ignores_the_center_view_of_dual_pixels():
    model = kpac.create_model("dpdnet_dual")
    # Of 3x3 convolutions of 64 to 1024 channels, five 2x2 ones upward, and the two at the end, counted by hand.
    widths = [6, 64, 128, 256, 512, 1024]
    expected = sum(9 * (a * b + b * b) + 2 * b for a, b in itertools.pairwise(widths))
    expected += sum(4 * 2 * b * b + b + 9 * (2 * b * b + b * b) + 2 * b for b in (512, 256, 128, 64))
    expected += 9 * 64 * 3 + 3 + 3 * 3 + 3
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    small = make("dpdnet_dual").eval()
    views = torch.rand(1, 9, 16, 16)
    other = views.clone()
    other[:, :3] = 0
    with torch.no_grad():
        assert torch.equal(small(views), small(other))
        other[:, 3:6] = 0
        assert not torch.equal(small(views), small(other))


@pytest.mark.parametrize("name", ["dpdnet", "dpdnet_dual", "nafnet"])
def test_shipped_configurations_share_data_and_budget_with_kpac(name):
    if name == "nafnet":
        pytest.importorskip("spandrel")
    config = resolve_model(load_config(CONFIGS / f"{name}.yaml"))
    check_losses(config.train.losses)
    base = load_config(CONFIGS.parent / "paper" / "kpac_2level.yaml")
    assert config.data == base.data
    assert config.stages == base.stages
    assert config.model.name == name


def test_comparison_at_equal_data_and_budget_is_one_sweep():
    pytest.importorskip("spandrel")
    sweep = load_sweep(CONFIGS / "comparison.yaml")
    assert [run.config.model.name for run in sweep.runs] == ["kpac_2level", "dpdnet", "nafnet"]
    assert len({str(run.config.data) for run in sweep.runs}) == 1
    assert {run.config.train.iterations for run in sweep.runs} == {600000}
    for run, name in zip(sweep.runs[1:], ("dpdnet", "nafnet"), strict=True):
        alone = resolve_model(load_config(CONFIGS / f"{name}.yaml"))
        assert run.config.train == alone.train
        assert run.config.model == alone.model


def test_names_and_schema_know_the_baselines():
    pytest.importorskip("spandrel")
    assert set(SMALL) <= set(model_names())
    names = [choice["properties"]["name"]["const"] for choice in config_schema()["$defs"]["ModelConfig"]["anyOf"]]
    assert set(SMALL) <= set(names)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("dpdnet", {"width": 0}, "model.width"),
        ("dpdnet", {"dual": True}, "unknown key 'model.dual'"),
        ("nafnet", {"encoder_blocks": [1, 1], "decoder_blocks": [1]}, "has 1 levels, model.encoder_blocks has 2"),
        ("nafnett", {}, "did you mean 'nafnet'"),
    ],
)
def test_mistakes_in_a_baseline_are_one_line(name, options, words):
    if name == "nafnet":
        pytest.importorskip("spandrel")
    with pytest.raises(UserError) as refusal:
        kpac.create_model(name, **options)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_missing_package_of_a_baseline_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "spandrel.architectures.NAFNet", None)
    monkeypatch.setitem(__import__("sys").modules, "spandrel", None)
    with pytest.raises(UserError, match=r"pip install 'kpac\[zoo\]'"):
        kpac.create_model("nafnet", **SMALL["nafnet"])
