"""An accelerated network computes what the plain one does, and leaves to it what it cannot compute."""

import copy
import itertools
from contextlib import nullcontext

import pytest
import torch

from kpac import create_model
from kpac.cpu import accelerate, banded, bands, few_outputs, plain_class, shared_kernel, winograd
from kpac.cpu.conditions import has_bfloat16
from kpac.models.kpac import KPACBlock
from kpac.models.layers import Conv, DownConv, ResidualConv, UpConv
from kpac.restore.memory import LiveBytes, peak_bytes
from tests.models import golden
from tests.models.test_ablation import COMBINATIONS

NETWORKS = [
    *(("kpac_2level", options) for options in COMBINATIONS),
    ("kpac_3level", {}),
    ("kpac_3level", {"share_kernel": False, "dilations": (1, 3)}),
    ("kpac_dual", {}),
    ("kpac_2level", {"dilations": (3,), "kernel_size": 7}),
    ("kpac_2level", {"dilations": (40, 1)}),  # wider than the features
]


def pair(name: str, options: dict) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A network, accelerated and as it is."""
    plain = golden.randomize(create_model(name, **({"width": 16} | options)))
    return accelerate(plain), plain


@pytest.fixture
def taken(monkeypatch):
    """How often an image was computed in bands."""
    calls = []
    compute = bands._residual
    monkeypatch.setattr(bands, "_residual", lambda *arguments: calls.append(1) or compute(*arguments))
    return calls


@pytest.mark.parametrize("channels", [1, winograd.CHANNELS, 1000])  # of the layers that are transformed: all to none
@pytest.mark.parametrize(("name", "options"), NETWORKS, ids=str)
def test_output_is_that_of_the_layers(name, options, channels, taken, monkeypatch):
    monkeypatch.setattr(winograd, "CHANNELS", channels)
    # Bands of few rows, so that these small images have several, of different heights.
    monkeypatch.setattr(banded, "BAND_BYTES", 1)
    monkeypatch.setattr(banded, "CHAIN_BYTES", 1)
    quick, plain = pair(name, options)
    views = torch.rand(2, 3 * len(quick.views), 75, 53, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = plain(views), quick(views)
    assert len(taken) == 2
    changed = (expected - views[:, :3]).abs().max()
    assert changed > 0.1
    assert (found - expected).abs().max() < 1e-5 * max(1, changed)


@pytest.mark.parametrize("channels", [1, 1000])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (3, 50), (200, 5)], ids=str)
def test_image_of_any_size(size, channels, taken, monkeypatch):
    monkeypatch.setattr(winograd, "CHANNELS", channels)
    quick, plain = pair("kpac_2level", {})
    views = torch.rand(1, 3, *size)
    with torch.inference_mode():
        assert (quick(views) - plain(views)).abs().max() < 1e-5
    assert taken


@pytest.mark.parametrize("channels", [1, 1000])
@pytest.mark.parametrize("options", COMBINATIONS, ids=str)
def test_gradients_are_those_of_the_layers(options, channels, monkeypatch):
    monkeypatch.setattr(winograd, "CHANNELS", channels)
    quick, plain = pair("kpac_2level", options)
    gradients = []
    for model in (quick, plain):
        model.zero_grad()
        views = torch.rand(2, 3, 28, 36, generator=torch.Generator().manual_seed(0), requires_grad=True)
        model(views).square().mean().backward()
        gradients.append([views.grad, *(parameter.grad for parameter in model.parameters())])
    for found, expected in zip(*gradients, strict=True):
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max() + 1e-9


@pytest.mark.parametrize(
    ("size", "kernel_size", "dilations"),
    list(itertools.product([(9, 14), (1, 1)], [3, 5], [(1, 2, 3, 4, 5), (2, 2), (20, 1)])),
)
def test_shared_kernel_has_the_gradient_of_separate_convolutions(size, kernel_size, dilations):
    torch.manual_seed(0)
    block = KPACBlock(48, 16, kernel_size, dilations)
    golden.randomize(block)
    weights = torch.rand(len(dilations), 3, 16, *size)
    found = []
    for side in (accelerate(block), block):
        x = torch.rand(3, 48, *size, generator=torch.Generator().manual_seed(1), requires_grad=True)
        branches = torch.stack(side.branches(x))
        (branches * weights).sum().backward()
        found.append((branches, x.grad, block.kernels[0].grad))
        block.zero_grad()
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() < 2e-6 * other.abs().max()


LAYERS = {
    "3x3": (lambda channels: Conv(channels, 16, 3), banded.convolved),
    "5x5 dilated": (lambda channels: Conv(channels, 48, 5, dilation=2), banded.convolved),
    "strided": (lambda channels: DownConv(channels, 16), banded.downsampled),
    "transposed": (lambda channels: UpConv(channels, 16), banded.upsampled),
}
SIZES = ((2, 2), (4, 4), (10, 14), (2, 4), (16, 22), (36, 8), (4, 900))


def random_layer(kind: str, channels: int = 32) -> torch.nn.Module:
    torch.manual_seed(0)
    layer = accelerate(LAYERS[kind][0](channels))
    torch.nn.init.normal_(layer.bias)
    assert winograd.suits(layer)
    return layer


def by_the_library(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """In float64."""
    plain = copy.deepcopy(layer).double()  # which no loop here computes
    return plain(x.double())


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("portion", [1, winograd.TILE_BYTES])  # few tiles at a time, or many
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.2)], ids=str)
def test_transformed_convolution_is_a_convolution_for_any_rows(kind, portion, dtype, tolerance, monkeypatch):
    if dtype == torch.bfloat16 and not has_bfloat16():
        pytest.skip("needs a processor with bfloat16")
    monkeypatch.setattr(winograd, "TILE_BYTES", portion)
    layer, (_, rows_of) = random_layer(kind), LAYERS[kind]
    with torch.inference_mode():
        for height, width in SIZES:
            x = torch.randn(height, width, 32).to(dtype)
            expected = by_the_library(layer, banded.as_image(x))[0].permute(1, 2, 0)
            parts = [banded.stored(part) for part in x.split(16, dim=2)]
            for source in (banded.stored(x), banded.Joined(parts)):
                rows = rows_of(layer, source)
                assert rows.shape == expected.shape
                for top, bottom in itertools.combinations({0, 1, 2, 3, 5, 8, len(expected)}, 2):
                    if top < bottom <= len(expected):
                        found = rows.within(top, bottom)
                        assert found.dtype == dtype
                        torch.testing.assert_close(found.double(), expected[top:bottom], atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("portion", [1, winograd.GRADIENT_BYTES])
@pytest.mark.parametrize("size", [(1, 2, 2), (3, 10, 14), (2, 36, 50)], ids=str)
def test_transformed_convolution_has_the_gradients_of_a_convolution(kind, portion, size, monkeypatch):
    monkeypatch.setattr(winograd, "GRADIENT_BYTES", portion)
    layer = random_layer(kind)
    images, *sides = size
    x = torch.randn(images, 32, *sides, requires_grad=True)
    expected = by_the_library(layer, x)
    found = layer(x)
    assert "_Convolve" in found.grad_fn.next_functions[0][0].name()
    above = torch.randn(found.shape)
    gradients = torch.autograd.grad(found, (x, layer.weight, layer.bias), above)
    plain = copy.deepcopy(layer).double()  # which no loop here computes
    wanted = torch.autograd.grad(plain(x.double()), (x, plain.weight, plain.bias), above.double())
    for one, other in zip((found, *gradients), (expected, *wanted), strict=True):
        assert (one - other).abs().max() < 2e-5 * max(1, other.abs().max())


def test_products_of_a_wide_row_stay_in_memory_until_they_are_added():
    torch.manual_seed(0)
    block = KPACBlock(16, 16, 3, (1, 2))
    x = torch.randn(1, 16, 2, 300_000, requires_grad=True)  # a megabyte is returned to the system once it is freed
    found = []
    for side in (accelerate(block), block):
        branches = torch.stack(side.branches(x))
        found.append((branches, *torch.autograd.grad(branches.square().mean(), (x, block.kernels[0]))))
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() < 1e-4 * other.abs().max()


FAST_LAYERS = {
    **{kind: lambda kind=kind: random_layer(kind) for kind in LAYERS},
    "few outputs": lambda: accelerate(ResidualConv(32)),
    "block": lambda: accelerate(KPACBlock(32, 16)),
}


@pytest.mark.parametrize("kind", FAST_LAYERS)
def test_layer_leaves_to_pytorch_what_it_is_not_made_for(kind):
    layer = FAST_LAYERS[kind]()
    for wrong in (torch.randn(1, 16, 8, 8), torch.randn(1, 64, 8, 8), torch.randn(1, 4096, 4, 4)):
        with pytest.raises(RuntimeError, match="channels"):
            layer(wrong)
    with pytest.raises(RuntimeError):
        copy.deepcopy(layer).double()(torch.randn(1, 32, 8, 8))
    assert layer(torch.randn(0, 32, 8, 8)).shape[0] == 0


@pytest.mark.parametrize("kind", FAST_LAYERS)
@pytest.mark.parametrize("surroundings", ["float64 by default", "another device by default", "autocast in backward"])
def test_gradients_do_not_depend_on_surroundings(kind, surroundings):
    layer, x = FAST_LAYERS[kind](), torch.randn(2, 32, 12, 12, requires_grad=True)

    def gradients(forward, backward) -> list[torch.Tensor]:
        with forward:
            output = layer(x)
        above = torch.ones_like(output)
        with backward:
            return torch.autograd.grad(output, (x, *layer.parameters()), above)

    expected = gradients(nullcontext(), nullcontext())
    if surroundings == "autocast in backward":
        found = gradients(nullcontext(), torch.autocast("cpu", torch.bfloat16))
        tolerance = 1e-4 if kind != "block" else 1  # shape attention is made of PyTorch's own layers
    elif surroundings == "another device by default":
        found, tolerance = gradients(torch.device("meta"), torch.device("meta")), 1e-5
    else:
        torch.set_default_dtype(torch.float64)
        try:
            found, tolerance = gradients(nullcontext(), nullcontext()), 1e-5
        finally:
            torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max()


@pytest.mark.parametrize("kind", [*LAYERS, "few outputs"])
def test_layers_may_be_frozen(kind):
    layer, x = FAST_LAYERS[kind](), torch.randn(2, 32, 12, 12, requires_grad=True)
    (whole,) = torch.autograd.grad(layer(x).square().sum(), x)
    layer.requires_grad_(False)
    (frozen,) = torch.autograd.grad(layer(x).square().sum(), x)
    torch.testing.assert_close(frozen, whole)
    layer.requires_grad_(True)
    layer(x.detach()).sum().backward()
    assert layer.weight.grad.abs().max() > 0


def test_residual_may_be_changed_in_place():
    layer, x = accelerate(ResidualConv(32)), torch.randn(2, 32, 12, 12, requires_grad=True)
    found = [
        torch.autograd.grad(change(layer(x)).square().sum(), x)[0] for change in (lambda y: y.add_(1), lambda y: y + 1)
    ]
    torch.testing.assert_close(*found)


def test_transformed_convolution_in_training_takes_inputs_of_any_memory_layout():
    layer = random_layer("3x3")
    x = torch.randn(2, 32, 12, 20)
    wide = torch.randn(2, 64, 24, 20)[:, 16:48, ::2].requires_grad_()
    for images in (x, x.contiguous(memory_format=torch.channels_last), wide):
        torch.testing.assert_close(layer(images).double(), by_the_library(layer, images), atol=2e-5, rtol=0)
    layer(wide).sum().backward()  # whose gradient has no stride
    assert wide.grad.abs().max() > 0


@pytest.mark.parametrize("kind", LAYERS)
def test_transformed_convolution_rounds_to_a_few_millionths(kind):
    layer = random_layer(kind, 192)
    x = torch.randn(1, 192, 16, 32)
    with torch.inference_mode():
        expected = by_the_library(layer, x)
        assert (layer(x) - expected).abs().max() < 1e-5 * expected.abs().max()
        assert (plain_class(layer).forward(layer, x) - expected).abs().max() < 1e-6 * expected.abs().max()


def test_convolutions_of_many_channels_are_transformed():
    model = create_model("kpac_2level", blocks=1)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, (Conv, DownConv, UpConv))}
    attention = [f"blocks.0.scale_attention.features.{index}" for index in range(3)]
    assert [name for name, layer in layers.items() if winograd.suits(layer)] == [
        *("encoder.0.1", "encoder.1.0", "encoder.1.1", "encoder.2.0", "encoder.2.1", *attention, "blocks.0.fusion"),
        *("fusion.0", "fusion.1", "decoder.0.up", "decoder.0.merge", "decoder.1.up"),
    ]


@pytest.mark.skipif(not has_bfloat16(), reason="needs a processor with bfloat16")
@pytest.mark.parametrize(("name", "options"), NETWORKS, ids=str)
def test_output_in_bfloat16_is_that_of_the_layers_but_for_rounding(name, options, taken, monkeypatch):
    monkeypatch.setattr(banded, "BAND_BYTES", 1)
    quick, plain = pair(name, options)
    views = torch.rand(2, 3 * len(quick.views), 75, 53, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = plain(views)
        with torch.autocast("cpu", torch.bfloat16):
            found = quick(views)
    assert len(taken) == 2
    assert found.dtype == torch.float32
    changed = (expected - views[:, :3]).square().mean().sqrt()
    assert 0 < (found - expected).square().mean().sqrt() < 0.05 * changed


def test_empty_batch_gives_an_empty_batch():
    quick, plain = pair("kpac_2level", {})
    for model in (quick, plain):
        with torch.inference_mode():
            assert model(torch.rand(0, 3, 16, 24)).shape == (0, 3, 16, 24)
        assert model(torch.rand(0, 3, 16, 24)).shape == (0, 3, 16, 24)


def test_threads_change_nothing(taken):
    quick, _ = pair("kpac_2level", {})
    views = torch.rand(1, 3, 200, 180)
    threads = torch.get_num_threads()
    outputs = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            with torch.inference_mode():
                outputs.append(quick(views))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert all((output - outputs[0]).abs().max() < 1e-6 for output in outputs[1:])


@pytest.mark.parametrize(
    ("size", "kernel_size", "outputs"), list(itertools.product([(9, 14), (1, 1), (2, 3)], [1, 5], [3, 4]))
)
def test_few_outputs_have_the_values_and_gradients_of_a_convolution(size, kernel_size, outputs):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(32, outputs, kernel_size, padding=kernel_size // 2)
    x = torch.randn(3, 32, *size, requires_grad=True)
    above = torch.randn(3, outputs, *size)
    found = []
    for compute in (layer, lambda x: few_outputs.convolve(x, layer.weight, layer.bias)):
        output = compute(x)
        found.append((output, *torch.autograd.grad(output, (x, layer.weight, layer.bias), above)))
    for expected, one in zip(*found, strict=True):
        assert (one - expected).abs().max() < 2e-6 * max(1, expected.abs().max())


def test_last_convolution_takes_the_columns_in_training(monkeypatch):
    calls = []
    compute = few_outputs.convolve
    monkeypatch.setattr(few_outputs, "convolve", lambda *arguments: calls.append(1) or compute(*arguments))
    for model in pair("kpac_2level", {"width": 8}):
        model(torch.rand(1, 3, 16, 16)).sum().backward()
    assert len(calls) == 1


def test_block_of_a_shared_kernel_shares_its_products(monkeypatch):
    calls = []
    monkeypatch.setattr(shared_kernel, "add_responses", lambda *_: calls.append(1))
    x = torch.rand(3, 32, 8, 8)
    accelerate(KPACBlock(32, 16)).branches(x)
    assert len(calls) == 1
    accelerate(KPACBlock(32, 16, share_kernel=False)).branches(x)
    accelerate(KPACBlock(32, 16, kernel_size=1)).branches(x)
    accelerate(KPACBlock(32, 16).double()).branches(x.double())
    accelerate(KPACBlock(32, 5)).branches(x)  # no whole vectors
    assert len(calls) == 1


@pytest.mark.parametrize("reason", ["gradient", "hook", "double", "autocast", "another layer"])
def test_layers_compute_where_bands_would_miss_something(reason, taken):
    model = accelerate(create_model("kpac_2level", width=8).eval())
    views = torch.rand(1, 3, 16, 16)
    seen = []
    if reason == "hook":
        model.blocks[0].register_forward_hook(lambda *_: seen.append(1))
    if reason == "another layer":
        model.fusion[1] = torch.nn.Identity()
    if reason == "double":
        model, views = model.double(), views.double()
    lower = torch.autocast("cpu", torch.float16, enabled=reason == "autocast")
    with torch.set_grad_enabled(reason == "gradient"), lower:
        output = model(views)
    assert output.shape == views.shape
    assert not taken
    assert bool(seen) == (reason == "hook")


def test_exported_program_holds_ordinary_convolutions():
    model = accelerate(create_model("kpac_2level", width=8, blocks=1).eval())
    with torch.no_grad():
        program = torch.export.export(model, (torch.rand(1, 3, 16, 16),))
    names = [str(node.target) for node in program.graph.nodes]
    assert sum("conv2d" in name for name in names) >= 15
    assert not any("SharedKernel" in name for name in names)


@pytest.mark.parametrize(
    ("name", "options"), [("kpac_2level", {}), ("kpac_3level", {}), ("kpac_dual", {"blocks": 0})], ids=str
)
def test_estimate_of_memory_holds(name, options, monkeypatch):
    for module, size in ((banded, "BAND_BYTES"), (banded, "CHAIN_BYTES"), (winograd, "TILE_BYTES")):
        monkeypatch.setattr(module, size, 1)
    quick, _ = pair(name, options)
    # Large, because the rows being computed, which the estimate leaves out, are 2 MB at any size.
    views = torch.rand(1, 3 * len(quick.views), 960, 640).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), LiveBytes() as live:
        quick(views)
    assert peak_bytes(quick, 960, 640) == pytest.approx(live.peak + views.nbytes, rel=0.05)
