"""What `block_health` says of blocks that work, and of blocks that are dead."""

import math

import pytest
import torch
from torch import nn

from kpac.config import load_config
from kpac.models.health import DEAD_BELOW, block_health
from kpac.models.registry import create_model
from kpac.training.trainer import train


def working_network(**options) -> nn.Module:
    torch.manual_seed(0)
    model = create_model("kpac_2level", width=8, blocks=2, init="he", **options)
    for layer in (model.decoder[-1].merge, model.fusion[0]):  # as after the first steps
        nn.init.normal_(layer.weight, std=0.02)
    return model


def test_attentions_start_at_one_half_where_their_gradient_is_largest():
    model = create_model("kpac_2level", width=8, init="he")
    maps = model.attention_maps(torch.rand(1, 3, 32, 32))
    assert all(torch.equal(weights, torch.full_like(weights, 0.5)) for weights in maps.values())
    features = torch.rand(1, 16, 8, 8)
    for block in model.blocks:
        assert torch.equal(block.shape_attention(features), torch.full((1, 8, 1, 1), 0.5))
        block.scale_attention(features).sum().backward()
        assert block.scale_attention.weigh.weight.grad.abs().max() > 0


def test_blocks_start_without_a_say_and_are_drawn_in_by_the_first_steps():
    torch.manual_seed(0)
    model = create_model("kpac_2level", width=8, init="he")
    views = torch.rand(1, 3, 32, 32)
    nn.init.normal_(model.decoder[-1].merge.weight, std=0.02)
    assert [(block.contribution, block.dead) for block in block_health(model, views)] == [(0, False)] * 2
    model(views).square().mean().backward()
    assert model.fusion[0].weight.grad[:, 16:].abs().max() > 0
    assert all(block.kernels[0].grad.abs().max() == 0 for block in model.blocks)


def test_working_blocks_contribute():
    first, second = block_health(working_network(), torch.rand(1, 3, 32, 32))
    assert min(first.contribution, second.contribution) > 10 * DEAD_BELOW
    assert (first.mean_weight, first.saturated, first.dead) == (0.5, 0, False)


def test_contribution_is_the_change_of_the_residual_without_the_branches():
    model, views = working_network(), torch.rand(1, 3, 32, 32)
    (_, found) = block_health(model, views)
    whole = model(views)
    for kernel in model.blocks[1].kernels:
        nn.init.zeros_(kernel)  # leaky ReLU of zero is zero, and so is every branch
    change = (model(views) - whole).square().mean().sqrt() / (whole - views).square().mean().sqrt()
    assert found.contribution == pytest.approx(float(change.detach()), rel=1e-4)


def test_closed_gate_is_dead_and_saturated():
    model = working_network()
    nn.init.constant_(model.blocks[1].scale_attention.weigh.bias, -12)
    alive, dead = block_health(model, torch.rand(1, 3, 32, 32))
    assert (alive.dead, dead.dead) == (False, True)
    assert dead.saturated == 1
    assert dead.mean_weight < 1e-4


def test_small_weights_alone_are_not_death():
    model = working_network()
    block = model.blocks[1]
    nn.init.constant_(block.scale_attention.weigh.bias, -5)  # weights of 0.0067
    with torch.no_grad():
        block.fusion.weight /= torch.sigmoid(torch.tensor(-5.0)) * 2
    _, health = block_health(model, torch.rand(1, 3, 32, 32))
    assert health.mean_weight < 0.01
    assert not health.dead


def test_untrained_network_is_not_called_dead():
    torch.manual_seed(0)
    health = block_health(create_model("kpac_2level", width=8, init="he"), torch.rand(1, 3, 32, 32))
    assert all(math.isnan(block.contribution) and not block.dead for block in health)


def test_block_without_attention_says_its_contribution_alone():
    options = {"scale_attention": False, "shape_attention": False}
    (block, _) = block_health(working_network(**options), torch.rand(1, 3, 32, 32))
    assert set(block.numbers()) == {"contribution"}
    assert not block.dead


def test_closed_shape_attention_kills_a_block_too():
    model = working_network()
    nn.init.constant_(model.blocks[0].shape_attention.weigh.bias, -20)
    (dead, alive) = block_health(model, torch.rand(1, 3, 32, 32))
    assert (dead.dead, dead.mean_weight, alive.dead) == (True, 0.5, False)


def test_training_warns_of_a_dead_block_and_records_every_block(config_file, tmp_path, capsys):
    model = create_model("kpac_2level", width=4, blocks=1, init="he")
    for layer in (model.decoder[-1].merge, model.fusion[0]):
        nn.init.normal_(layer.weight, std=0.02)
    nn.init.constant_(model.blocks[0].scale_attention.weigh.bias, -20)
    from kpac.models.weights import save_model

    save_model(model, tmp_path / "dead.safetensors")
    for weights, warned in ((tmp_path / "dead.safetensors", True), (None, False)):
        overrides = ["train.iterations=3", f"name=warned_{warned}"]
        overrides += [f"train.initial_weights={weights}"] if weights else ["train.optimizer.learning_rate=1e-2"]
        folder = train(load_config(config_file, overrides))
        assert ("warning: block 1 contributes nothing" in capsys.readouterr().err) == warned
        assert '"kind": "blocks", "iteration": 3, "1/contribution": ' in (folder / "metrics.jsonl").read_text()
