"""The reach that follows from the layers is the reach that the layers have."""

import pytest
import torch

from kpac import create_model
from kpac.cpu import accelerate
from kpac.models.layers import Conv, DownConv, UpConv
from kpac.models.reach import Span, block_reads, decoder_reads, encoder_reads, reads
from tests.models import golden


def support(function, size: int, channels: int, outputs: Span) -> Span:
    """The rows of the input that the outputs' rows depend on, by gradient."""
    x = torch.rand(1, channels, size, size, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(function(x)[:, :, outputs.first : outputs.last + 1].square().sum(), x)
    rows = gradient.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    return Span(int(rows[0]), int(rows[-1]))


@pytest.mark.parametrize(
    "layer",
    [Conv(2, 3, 5), Conv(2, 3, 3, dilation=4), DownConv(2, 3), UpConv(2, 3), torch.nn.Conv2d(2, 3, 1)],
    ids=str,
)
def test_reach_of_a_layer_is_its_gradients(layer):
    layer = golden.randomize(layer).double()
    for outputs in (Span(10, 10), Span(11, 11), Span(9, 14)):
        assert reads(layer, outputs) == (support(layer, 48, 2, outputs),)


@pytest.mark.parametrize(
    "options", [{}, {"scale_attention": False}, {"block": "plain"}, {"dilations": (1, 7)}], ids=str
)
def test_reach_of_a_block_is_its_gradients(options):
    model = create_model("kpac_2level", width=4, blocks=1, shape_attention=False, **options)
    block = golden.randomize(model).double().blocks[0]
    # As large as to hold the reach of the plain block's many convolutions.
    assert block_reads(block, Span(100, 102)) == support(block, 203, 8, Span(100, 102))


@pytest.mark.parametrize("name", ["kpac_2level", "kpac_3level"])
def test_reach_of_encoder_and_decoder_are_their_gradients(name):
    model = golden.randomize(create_model(name, width=4, blocks=1)).double()
    assert encoder_reads(model, Span(8, 9)) == support(lambda x: model.encode(x)[-1], 136, 3, Span(8, 9))
    pixels = Span(64, 64 + model.multiple - 1)
    deep, skips = decoder_reads(model, pixels)
    views = torch.rand(1, 3, 136, 136, dtype=torch.float64)
    features = model.encode(views)

    def decode(chain):
        return model.decode([chain, features[-1]], features[:-1])

    def skip(x):
        return model.decode([features[-1], features[-1]], model.encode(x)[:-1])

    with torch.no_grad():
        features = [feature.detach() for feature in features]
    assert deep == support(decode, 136 // model.multiple, 8, pixels)
    assert skips == support(skip, 136, 3, pixels)


def test_reach_of_the_whole_network_is_its_gradients():
    model = golden.randomize(create_model("kpac_2level", width=4, blocks=1, shape_attention=False)).double()
    assert reads(model, Span(120, 121), model.residual) == (support(model.residual, 240, 3, Span(120, 121)),)


def test_reach_of_an_accelerated_network_is_that_of_the_plain_one():
    model = create_model("kpac_2level", width=16)
    quick = accelerate(model)
    assert reads(quick, Span(9, 9), quick.residual) == reads(model, Span(9, 9), model.residual)


def test_unknown_layer_is_refused():
    with pytest.raises(TypeError, match="reach of avg_pool2d is not known"):
        reads(torch.nn.AvgPool2d(2), Span(0, 0))
