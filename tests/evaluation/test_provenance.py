"""Learned metrics name their package and the hash of their weights."""

import sys
import types

import pytest
import torch
from torch import nn

from kpac.evaluation.protocols import find_protocol
from kpac.evaluation.provenance import weights_hash
from kpac.evaluation.scorer import Scorer


class Quality(nn.Module):
    """A metric in the manner of pyiqa's: some of its tensors are plain attributes."""

    def __init__(self, name: str, device=None):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        nn.init.constant_(self.layer.weight, 2.0)
        nn.init.zeros_(self.layer.bias)
        self.mean = torch.full((2, 2), 0.5, dtype=torch.float64)

    def forward(self, image):
        return image.mean()


@pytest.fixture
def pyiqa(monkeypatch):
    module = types.ModuleType("pyiqa")
    module.create_metric = Quality
    monkeypatch.setitem(sys.modules, "pyiqa", module)


def test_no_reference_metrics_name_their_package_and_weights(pyiqa):
    scorer = Scorer(find_protocol("dpdd-8bit"), no_reference=("niqe",))
    entry = scorer.provenance["niqe"]
    assert entry["package"].startswith("pyiqa")
    assert entry["sha256"] == weights_hash(Quality("niqe"))
    assert len(entry["sha256"]) == 64


@pytest.mark.parametrize("changed", ["weight", "plain attribute", "type"])
def test_hash_changes_with_every_tensor(changed):
    metric = Quality("niqe")
    before = weights_hash(metric)
    if changed == "weight":
        metric.layer.weight.data += 1
    if changed == "plain attribute":
        metric.mean[1, 1] = 0.25
    if changed == "type":
        metric.mean = metric.mean.float()
    assert weights_hash(metric) != before


def test_metrics_without_weights_have_no_entry():
    assert Scorer(find_protocol("dpdd-8bit")).provenance == {}
