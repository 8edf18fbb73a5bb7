"""Every part of the method can be switched off, and a switched network is a network like any other."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from kpac import create_model, load_model, save_model
from kpac.models.cost import count_cost
from kpac.models.kpac import ShapeAttention, local_mean
from tests.models import golden

SWITCHES = ("share_kernel", "scale_attention", "shape_attention")
COMBINATIONS = [
    *(dict(zip(SWITCHES, values, strict=True)) for values in itertools.product((True, False), repeat=3)),
    {"block": "plain"},
    {"dilations": (1,)},
    {"dilations": (2, 7), "kernel_size": 3, "share_kernel": False},
    {"kernel_size": 1, "blocks": 3},
    {"shape_pooling": {"window": (16, 24)}},
    {"blocks": 0},
]


def block_parameters(width, kernel_size, dilations, share_kernel, scale_attention, shape_attention) -> int:
    """Parameters of one KPAC block, term by term."""
    channels, filters, branches = 2 * width, width, len(dilations)
    kernels = (1 if share_kernel else branches) * kernel_size**2 * channels * filters
    scale = sum(25 * i * o + o for i, o in [(channels, 32), (32, 32), (32, 16), (16, 16), (16, branches)])
    hidden = filters // 4
    shape = channels * hidden + hidden + hidden * filters + filters
    fusion = 9 * branches * filters * channels + channels
    return kernels + scale * scale_attention + shape * shape_attention + fusion


def network_parameters(width, blocks, block) -> int:
    """Parameters of the 2-level network around blocks of a given size."""
    c, d = width, 2 * width
    encoder = 75 * c + c + 3 * (9 * c * c + c) + (9 * c * d + d) + (9 * d * d + d)
    fusion = 9 * (blocks + 1) * d * d + d + 9 * d * d + d
    decoder = (16 * d * c + c) + (9 * d * c + c) + (16 * c * c + c) + (25 * d * 3 + 3)
    return encoder + blocks * block + fusion + decoder


@pytest.mark.parametrize("options", COMBINATIONS, ids=str)
def test_combination_builds_trains_saves_and_loads(tmp_path, options):
    torch.manual_seed(0)
    model = create_model("kpac_2level", width=8, **options)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    views, target = torch.rand(2, 3, 24, 32), torch.rand(2, 3, 24, 32)
    loss = (model(views) - target).square().mean()
    loss.backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []
    optimizer.step()
    assert (model(views) - target).square().mean() < loss
    golden.randomize(model)
    save_model(model, tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.config == model.config
    with torch.no_grad():
        assert torch.equal(loaded(views), model.eval()(views))


@pytest.mark.parametrize("options", [*COMBINATIONS, {"width": 48}], ids=str)
def test_parameter_count_follows_the_formula(options):
    settings = {"width": 8, "blocks": 2, "kernel_size": 5, "dilations": (1, 2, 3, 4, 5)} | dict.fromkeys(SWITCHES, True)
    settings |= {key: value for key, value in options.items() if key != "shape_pooling"}
    plain = settings.pop("block", "kpac") == "plain"
    blocks = settings.pop("blocks")
    block = block_parameters(**settings)
    if plain:
        channels = 2 * settings["width"]
        each = settings["kernel_size"] ** 2 * channels**2 + channels
        block = each * round(block / each)
    model = create_model("kpac_2level", **({"width": 8} | options))
    assert sum(parameter.numel() for parameter in model.parameters()) == network_parameters(
        settings["width"], blocks, block
    )


@pytest.mark.parametrize("width", [16, 24, 48])
def test_plain_block_has_about_as_many_parameters(width):
    counts = [
        sum(
            parameter.numel() for parameter in create_model("kpac_2level", width=width, block=block).blocks.parameters()
        )
        for block in ("kpac", "plain")
    ]
    assert counts[1] == pytest.approx(counts[0], rel=0.15)


@pytest.mark.parametrize("options", COMBINATIONS, ids=str)
def test_combination_exports(options):
    model = golden.randomize(create_model("kpac_2level", **({"width": 4, "blocks": 1} | options)))
    views = torch.rand(1, 3, 16, 24)
    exported = torch.export.export(model, (views,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(views), model(views))


def test_unshared_branches_have_kernels_of_their_own():
    block = create_model("kpac_2level", width=4, blocks=1, share_kernel=False, dilations=(1, 1)).blocks[0]
    first, second = block.branches(torch.rand(1, 8, 12, 12))
    assert not torch.allclose(first, second)
    shared = create_model("kpac_2level", width=4, blocks=1, dilations=(1, 1)).blocks[0]
    torch.testing.assert_close(*shared.branches(torch.rand(1, 8, 12, 12)))


def test_local_mean_is_the_plain_mean_of_the_nearest_window():
    x = torch.rand(2, 3, 9, 12)
    mean = local_mean(x, (4, 5))
    inner = F.avg_pool2d(x, (4, 5), stride=1)
    assert mean.shape == x.shape
    torch.testing.assert_close(mean[:, :, 1:7, 2:10], inner)
    torch.testing.assert_close(mean[:, :, 0, 0], inner[:, :, 0, 0])
    torch.testing.assert_close(mean[:, :, 8, 11], inner[:, :, -1, -1])


def test_window_as_large_as_the_features_pools_as_published():
    attention = ShapeAttention(8, 4)
    x = torch.rand(1, 8, 6, 7)
    published = attention(x)
    attention.window = (6, 9)
    assert torch.equal(attention(x), published)


def test_crop_sees_the_same_statistics_as_the_frame_that_it_is_cut_from():
    torch.manual_seed(0)
    attention = ShapeAttention(8, 4, window=(6, 6))
    frame = torch.rand(1, 8, 20, 20)
    crop = frame[:, :, 4:10, 7:13]
    torch.testing.assert_close(attention(frame)[:, :, 6, 9], attention(crop)[:, :, 0, 0])


def test_pooling_window_is_given_in_pixels():
    model = create_model("kpac_3level", width=4, shape_pooling={"window": [256, 128]})
    assert model.blocks[0].shape_attention.window == (32, 16)


@pytest.mark.parametrize("side", [16, 18, 19])
def test_training_crop_of_the_windows_size_is_pooled_as_published(side):
    published = golden.randomize(create_model("kpac_2level", width=8))
    local = create_model("kpac_2level", width=8, shape_pooling={"window": [side, side]})
    local.load_state_dict(published.state_dict())
    crop, frame = torch.rand(1, 3, side, side), torch.rand(1, 3, 64, 64)
    frame[..., 32:] = 0  # bright on one side, so that local means differ from the whole one
    with torch.no_grad():
        assert torch.equal(local(crop), published(crop))
        assert (local(frame) - published(frame)).abs().max() > 2e-5  # rounding is below 1e-6


def test_translation_by_the_stride_commutes_with_the_network():
    torch.manual_seed(0)
    model = create_model("kpac_2level", width=4, blocks=1, shape_attention=False, init="he").double().eval()
    model.decoder[-1].merge.weight.data.normal_(0, 0.1)
    scene = torch.rand(1, 3, 264, 264, dtype=torch.float64)
    with torch.no_grad():
        first, second = model(scene[:, :, :256, :256]), model(scene[:, :, 4:260, 8:264])
    torch.testing.assert_close(first[:, :, 124:136, 128:136], second[:, :, 120:132, 120:128], atol=1e-9, rtol=0)
    assert (first[:, :, 124:136, 128:136] - second[:, :, 121:133, 120:128]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["kpac_2level", "kpac_3level", "kpac_dual"])
def test_float64_and_float32_agree(name):
    model = golden.randomize(create_model(name, width=16))
    views = torch.rand(1, 3 * len(model.views), 40, 48)
    with torch.no_grad():
        single = model(views)
        assert (single - views[:, :3]).abs().mean() > 0.1
        torch.testing.assert_close(model.double()(views.double()).float(), single, atol=1e-5, rtol=0)


def test_compiled_and_eager_agree():
    torch.compiler.reset()  # torch 2.6 keeps what exporting traced
    model = golden.randomize(create_model("kpac_2level", width=4, blocks=1))
    views = torch.rand(1, 3, 17, 23)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model)(views), model(views), atol=1e-5, rtol=0)


def test_multiply_accumulates_of_one_block_follow_the_formula():
    cost = count_cost(create_model("kpac_2level"), height=64, width=96)
    positions = 64 // 4 * 96 // 4
    parts = {part.name: part for part in cost.parts}
    block = [parts[f"blocks.0.{name}"] for name in ("branches", "scale_attention", "fusion")]
    assert sum(part.macs for part in block) == 906_960 * positions
    assert parts["blocks.1.branches"].macs == 5 * 25 * 96 * 48 * positions
    assert parts["blocks.0.shape_attention"].macs == 96 * 12 + 12 * 48
    assert cost.parameters == 1_578_277
    assert sum(part.macs for part in cost.parts) == cost.macs
    assert list(parts) == [
        "encoder",
        *(
            f"blocks.{i}.{part}"
            for i in (0, 1)
            for part in ("branches", "scale_attention", "shape_attention", "fusion")
        ),
        "fusion",
        "decoder",
    ]
    size, half, quarter = 64 * 96, 64 * 96 // 4, 64 * 96 // 16
    first, second = size * (75 * 48 + 9 * 48 * 48), half * 2 * 9 * 48 * 48
    assert parts["encoder"].macs == first + second + quarter * 9 * (48 * 96 + 96 * 96)


def test_shape_attention_can_be_left_out_of_the_cost():
    names = [part.name for part in count_cost(create_model("kpac_2level", shape_attention=False), 8, 8).parts]
    assert "blocks.0.shape_attention" not in names
    assert "blocks.0.scale_attention" in names
