"""The averaged weights are the exponential average, and they are what a run scores and saves."""

import pytest
import torch
from torch import nn

from kpac.config import load_config
from kpac.models.weights import load_model
from kpac.training.checkpoint import read_checkpoint
from kpac.training.ema import ExponentialMovingAverage
from kpac.training.trainer import train


@pytest.fixture
def layer() -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    return layer


def test_average_is_the_closed_form(layer):
    average = ExponentialMovingAverage(layer, decay=0.9)
    for value in (2.0, 5.0):
        nn.init.constant_(layer.weight, value)
        average.update(layer)
    assert average.state_dict()["weight"].item() == pytest.approx(0.81 * 1 + 0.09 * 2 + 0.1 * 5)


def test_weights_come_back_after_the_average_was_applied_even_after_an_error(layer):
    average = ExponentialMovingAverage(layer, decay=0.5)
    nn.init.constant_(layer.weight, 3.0)
    average.update(layer)
    parameter, storage = layer.weight, layer.weight.data_ptr()
    found = []

    def validate():
        with average.applied_to(layer):
            found.append(layer.weight.item())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validate()
    assert found == [2.0]
    assert layer.weight is parameter
    assert (layer.weight.item(), layer.weight.data_ptr()) == (3.0, storage)


def test_run_saves_the_average_as_its_weights_and_trains_on_with_its_own(config_file):
    plain = train(load_config(config_file, ["name=plain"]))
    averaged = train(load_config(config_file, ["name=averaged", "train.ema_decay=0.5"]))
    states = [read_checkpoint(folder / "checkpoints" / "iteration_0000006.pt") for folder in (plain, averaged)]
    assert all(torch.equal(states[0]["model"][name], states[1]["model"][name]) for name in states[0]["model"])
    saved = load_model(averaged / "checkpoints" / "last.safetensors").state_dict()
    assert all(torch.equal(saved[name], value) for name, value in states[1]["average"].items())
    assert not all(torch.equal(saved[name], states[1]["model"][name]) for name in saved)
