"""Precision, memory layout, accumulation and skipped steps change the cost of a step, not what it means."""

from pathlib import Path

import pytest
import torch
from torch import nn

from kpac.config import ComputeConfig, load_config
from kpac.distributed import Ranks
from kpac.models.registry import resolve_model
from kpac.training.compute import Compute
from kpac.training.trainer import Trainer

CPU = torch.device("cpu")


def weights(config_file: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """After three steps with a constant learning rate."""
    config = resolve_model(load_config(config_file, ["train.iterations=3", "train.batch_size=4", *overrides]))
    trainer = Trainer(config, Ranks(0, 1, CPU))
    for batch in trainer.compute.batches(trainer.data.batches(0, 0, pinned=False)):
        trainer.step(batch)
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


@pytest.fixture
def plain(config_file) -> dict[str, torch.Tensor]:
    return weights(config_file)


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize(
    "override",
    [
        "train.accumulate=2",
        "train.accumulate=4",
        "train.compute.channels_last=true",
        "train.compute.fused_optimizer=true",
    ],
)
def test_step_is_the_same_in_parts_in_another_layout_and_fused(config_file, plain, override):
    # Sums in another order, through three steps of Adam at rates up to 1.2e-4: a weight moves by 2e-4 at most.
    assert largest_difference(plain, weights(config_file, override)) < 2e-6
    assert largest_difference(plain, weights(config_file, "seed=1")) > 1e-3


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_comes_close_and_is_used(config_file, plain, precision):
    lower = weights(config_file, f"train.compute.precision={precision}")
    assert all(value.dtype == torch.float32 for value in lower.values())
    assert 0 < largest_difference(plain, lower) < 5e-4


@pytest.mark.slow
def test_compiled_step_is_the_same(config_file, plain):
    assert largest_difference(plain, weights(config_file, "train.compute.compile=true")) < 2e-6


def test_auto_precision_is_float32_on_a_cpu():
    described = Compute(ComputeConfig(), CPU).describe()
    assert described == {
        "precision": "float32", "tf32": False, "channels_last": False, "compile": False, "accelerate": True,
        "fused_optimizer": True, "prefetch": False,
    }  # fmt: skip


@pytest.mark.parametrize("settings", [{}, {"fused_optimizer": False}, {"precision": "float16"}])
def test_step_with_a_gradient_that_is_not_finite_changes_nothing(settings):
    compute = Compute(ComputeConfig(**settings), CPU)
    layer = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, fused=compute.fused)
    compute.backward(layer(torch.ones(3)).sum())
    assert compute.update(optimizer, 0.5).isfinite()
    before = [value.clone() for value in (layer.weight, *optimizer.state[layer.weight].values())]
    for loss in (torch.tensor(torch.inf), torch.tensor(torch.nan)):
        compute.backward(layer(torch.ones(3)).sum() * 0 + loss)  # finite gradients of a loss that is not
        assert not compute.update(optimizer, 0.5).isfinite()
    after = [layer.weight, *optimizer.state[layer.weight].values()]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_long_gradients_are_clipped_to_the_norm_and_logged_as_they_were():
    compute = Compute(ComputeConfig(fused_optimizer=False), CPU)
    layer = nn.Linear(3, 1, bias=False)
    start = layer.weight.detach().clone()
    compute.backward(layer(torch.tensor([3.0, 0.0, 4.0])).sum())
    norm = compute.update(torch.optim.SGD(layer.parameters(), lr=1.0), longest=0.5)
    assert norm.item() == pytest.approx(5.0)
    assert (layer.weight - start).norm().item() == pytest.approx(0.5, rel=1e-5)
