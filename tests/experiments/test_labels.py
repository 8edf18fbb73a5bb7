"""A figure of a sweep says in words what varies, and joins by a line only what has an order."""

import pytest

from kpac.experiments import labels
from kpac.experiments.sweep import load_sweep
from tests.experiments.test_sweep import CONFIGS

SWITCHES = {"model.scale_attention": [True, False], "model.shape_attention": [True, False]}


@pytest.mark.parametrize(
    ("axes", "ordered"),
    [
        ({"model.blocks": [0, 1, 2, 3]}, True),
        ({"train.optimizer.learning_rate": [1e-2, 1e-3]}, True),
        ({"model.dilations": [[1], [1, 2], [1, 2, 3]]}, True),
        ({"model.blocks": [1, 3, 2]}, False),
        ({"model.dilations": [[1, 2], [1, 3]]}, False),
        ({"model.share_kernel": [True, False]}, False),
        ({"model.name": ["kpac_2level", "kpac_3level"]}, False),
        ({"model.blocks": [0, 1], "model.width": [8, 16]}, False),
        (SWITCHES, False),
        ({}, False),
    ],
    ids=str,
)
def test_only_one_axis_that_grows_or_shrinks_is_a_line(axes, ordered):
    assert labels.is_ordered(axes) is ordered


def test_settings_and_axes_are_called_by_words():
    grid = [dict(zip(SWITCHES, on, strict=True)) for on in ((True, True), (True, False), (False, True), (False, False))]
    assert [labels.label(SWITCHES, point) for point in grid] == ["scale + shape", "scale", "shape", "none"]
    assert labels.title(SWITCHES) == "attention"
    size = {"model.kernel_size": [3, 5]}
    assert (labels.title(size), labels.label(size, {"model.kernel_size": 3})) == ("kernel size", "3")
    assert labels.label({"model.dilations": [[1]]}, {"model.dilations": [1, 2]}) == "1, 2"
    mixed = {"model.blocks": [1, 2], "model.share_kernel": [True, False]}
    assert labels.title(mixed) == ""
    assert labels.label(mixed, {"model.blocks": 2, "model.share_kernel": False}) == "blocks 2, no share kernel"


def test_shipped_sweep_without_an_order_has_labels_and_no_line():
    sweep = load_sweep(CONFIGS / "quickstart_attention.yaml")
    assert (sweep.varied, sweep.ordered) == ("attention", False)
    assert [run.value for run in sweep.runs] == ["scale + shape", "scale", "shape", "none"]
    points = load_sweep(CONFIGS / "quickstart_kernel_sharing.yaml")
    assert (points.varied, points.ordered) == ("", False)
    assert "plain convolutions" in [run.value for run in points.runs]
