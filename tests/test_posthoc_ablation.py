"""benchmarks/posthoc_ablation.py switches off exactly the part that a row names."""

import torch

import kpac
from benchmarks.posthoc_ablation import parts, scores
from kpac.data.dataset import SceneDataset
from kpac.data.layouts import find_scenes
from tests.models.golden import randomize


def test_parts_are_switched_off(data_root):
    model = randomize(kpac.create_model("kpac_2level", width=4, blocks=2, dilations=(1, 2)))
    scenes = SceneDataset(find_scenes(data_root, "test", model.views), 8)
    reference = scores(model, scenes, ())
    found = {name: scores(model, scenes, changes) - reference for name, changes in parts(model)}
    assert list(found) == [
        "branches of block 1",
        "branches of block 2",
        "scale attention: each branch's mean over the image",
        "dilation 1",
        "dilation 2",
        "shape attention: the mean over the filters",
    ]
    assert all(change.abs().max() > 1e-6 for change in found.values())
    assert torch.equal(scores(model, scenes, ()), reference)  # nothing stays switched off

    for block in model.blocks:
        block.scale_attention.weigh.weight.data.zero_()  # now the same weights everywhere
        block.shape_attention.weigh.weight.data.zero_()
        block.shape_attention.weigh.bias.data.zero_()
    reference = scores(model, scenes, ())
    found = {name: scores(model, scenes, changes) - reference for name, changes in parts(model)}
    for name in ("scale attention: each branch's mean over the image", "shape attention: the mean over the filters"):
        assert found[name].abs().max() < 1e-5
    assert found["dilation 1"].abs().max() > 1e-6


def test_a_network_of_one_dilation_is_its_only_branch(data_root):
    model = randomize(kpac.create_model("kpac_2level", width=4, blocks=1, dilations=(3,), shape_attention=False))
    scenes = SceneDataset(find_scenes(data_root, "test", model.views), 8)
    branches, dilation = (dict(parts(model))[name] for name in ("branches of block 1", "dilation 3"))
    assert torch.equal(scores(model, scenes, branches), scores(model, scenes, dilation))
