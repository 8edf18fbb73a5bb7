"""Evaluation, validation, LPIPS and restoring compute in float32 as such, and leave the switches as they were."""

import numpy as np
import pytest
import torch
from torch import nn

import kpac
from kpac.data.dataset import SceneDataset
from kpac.data.layouts import find_scenes
from kpac.distributed import Ranks
from kpac.evaluation.evaluator import evaluate
from kpac.evaluation.perceptual import LPIPS
from kpac.evaluation.protocols import find_protocol
from kpac.precision import full_float32
from kpac.training.validation import validate

CPU = torch.device("cpu")


def switches() -> tuple[bool, ...]:
    cudnn = torch.backends.cudnn
    return cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, cudnn.benchmark


def switch(*values: bool) -> None:
    cudnn = torch.backends.cudnn
    cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, cudnn.benchmark = values


class Witness(nn.Module):
    """Writes down the switches in its pass."""

    views = ("center",)
    config = {"name": "witness"}

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        self.seen.append(switches())
        return views * self.scale


@pytest.fixture
def fast():
    """The switches as a training sets them."""
    before = switches()
    switch(True, True, True)
    yield
    after = switches()
    switch(*before)
    assert after == (True, True, True)


@pytest.fixture
def scenes(data_root) -> SceneDataset:
    return SceneDataset(find_scenes(data_root, "val"), bit_depth=8)


@pytest.mark.usefixtures("fast")
def test_evaluation_is_float32(scenes):
    model = Witness()
    assert len(list(evaluate(model, [scenes[0]], CPU))) == 1
    assert model.seen == [(False, False, False)]


@pytest.mark.usefixtures("fast")
def test_validation_is_float32(scenes):
    model = Witness()
    validate(model, scenes, find_protocol("dpdd-8bit"), Ranks(0, 1, CPU), samples=1)
    assert set(model.seen) == {(False, False, False)}


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_restoring_is_float32_but_for_what_autocast_lowers(precision):
    model = Witness()
    kpac.Restorer(model, tile=None, precision=precision, device="cpu")(np.zeros((8, 8, 3), np.float32))
    assert model.seen == [(False, False, False)]


@pytest.mark.usefixtures("fast")
def test_lpips_is_float32():
    metric = LPIPS.__new__(LPIPS)
    nn.Module.__init__(metric)
    seen, metric.centered = [], True
    metric.network = lambda output, *_, **__: (seen.append(switches()), output.new_zeros(1))[1]
    metric(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
    assert seen == [(False, False, False)]


def test_switches_come_back_after_an_error():
    before = switches()
    switch(True, True, True)
    try:
        with pytest.raises(RuntimeError), full_float32():
            raise RuntimeError
        assert switches() == (True, True, True)
    finally:
        switch(*before)


def test_deterministic_training_still_validates_with_operations_that_have_no_deterministic_form():
    torch.use_deterministic_algorithms(True)
    try:
        with full_float32():
            assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
