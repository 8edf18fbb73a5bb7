"""The network computes what the authors' graph computes."""

import pytest
import torch

from kpac import create_model
from kpac.cpu import accelerate
from tests.models import golden

NAMES = {"2level": "kpac_2level", "3level": "kpac_3level", "dual": "kpac_dual"}


@pytest.mark.parametrize("accelerated", [True, False])
@pytest.mark.parametrize("name", golden.CASES)
def test_output_equals_the_authors_graph(name, accelerated):
    case = golden.CASES[name]
    model = create_model(NAMES[case["variant"]], width=case["width_channels"], blocks=case["blocks"])
    views, weights = golden.draw(name)
    golden.fill(model, weights)
    if accelerated:
        model = accelerate(model)
    with torch.no_grad():
        output = model((views + 1) / 2) * 2 - 1
    assert (output - golden.output(name)).abs().max() < 1e-5


@pytest.mark.parametrize("name", golden.CASES)
def test_parameter_count_is_the_published_one(name):
    case = golden.CASES[name]
    model = create_model(NAMES[case["variant"]], width=case["width_channels"], blocks=case["blocks"])
    assert sum(parameter.numel() for parameter in model.parameters()) == case["parameter_count"]
