"""What is drawn is what the network computed."""

import json

import numpy as np
import pytest
import torch

import kpac
from kpac.cli import main
from kpac.errors import UserError
from kpac.images import from_float, read_pixels, to_float, write_pixels
from kpac.inspect.attention import BlockAttention, attention_of, rank_correlation, reduce_to
from kpac.inspect.kernels import kernel_patterns
from kpac.inspect.receptive_field import effective_receptive_field
from tests.conftest import texture
from tests.models import golden
from tests.test_cli import fails


def model(name: str = "kpac_2level", **options) -> torch.nn.Module:
    return golden.randomize(kpac.create_model(name, **({"width": 8, "blocks": 2} | options)))


def test_attention_is_the_networks_own():
    network, image = model(), texture(45, 62, 0).astype(np.float32)
    seen = []
    for block in network.blocks:
        block.scale_attention.register_forward_hook(lambda _, given, weights: seen.append(weights[0].numpy()))
    restored, blocks = attention_of(network, image)
    np.testing.assert_array_equal(restored, kpac.Restorer(network, tile=None, device="cpu")(image))
    for block in blocks:
        assert block.scale.shape == (5, 12, 16)
        assert block.shape.shape == (8,)
        low, high = block.expected_dilation.min(), block.expected_dilation.max()
        assert 1 < low < high < 5
    assert not network.blocks[0]._forward_pre_hooks
    np.testing.assert_allclose(blocks[0].scale, seen[0], atol=1e-6)
    np.testing.assert_allclose(blocks[1].scale, seen[1], atol=1e-6)


def test_expected_dilation_is_the_weighted_mean():
    scale = np.zeros((3, 2, 2), np.float32)
    scale[0, 0, 0] = scale[1, 0, 1] = scale[2, 1, 0] = 0.5
    scale[:, 1, 1] = (0.2, 0.2, 0.6)
    expected = BlockAttention((1, 2, 4), scale, None).expected_dilation
    np.testing.assert_allclose(expected, [[1, 2], [4, (0.2 + 0.4 + 2.4)]], rtol=1e-6)


def test_rank_correlation_follows_the_size_of_the_blur_and_not_its_side():
    radius = np.linspace(-3, 3, 64, dtype=np.float32)[None].repeat(32, axis=0)
    size = reduce_to(np.abs(radius), (8, 16))
    wide = BlockAttention((1, 5), np.stack([3 - size, size]), None)
    assert rank_correlation(wide.expected_dilation, radius) > 0.999  # rounding parts ties
    narrow = BlockAttention((5, 1), np.stack([3 - size, size]), None)
    assert rank_correlation(narrow.expected_dilation, radius) < -0.999
    fading = BlockAttention((1, 5), np.stack([size, size]), None)
    assert rank_correlation(fading.mean_weight, radius) > 0.999
    assert np.isnan(rank_correlation(np.ones((8, 16)), radius))


def test_reducing_takes_means_of_whole_positions():
    values = np.arange(30, dtype=np.float32).reshape(5, 6)
    reduced = reduce_to(values, (2, 2))
    assert reduced[0, 0] == values[:4, :4].mean()
    assert reduced[1, 0] == values[4, :4].mean()  # the last row stands for the ones below the image


def test_patterns_rebuild_a_kernel_of_rank_one():
    block = model(blocks=1).blocks[0]
    patterns = torch.randn(8, 1, 5, 5)
    strength = torch.arange(8, 0, -1.0).roll(3)[:, None, None, None]
    block.kernels[0].data = (
        patterns / patterns.flatten(1).norm(dim=1)[:, None, None, None] * strength * torch.ones(8, 16, 1, 1)
    )
    found = kernel_patterns(block)
    np.testing.assert_allclose(found.share, 1, rtol=1e-5)
    assert found.filters.tolist() == np.argsort(-strength.flatten().numpy()).tolist()
    for pattern, index in zip(found.patterns, found.filters, strict=True):
        kernel = block.kernels[0].data[index, 0].numpy()
        np.testing.assert_allclose(np.abs(pattern), np.abs(kernel) * 4, rtol=1e-4, atol=1e-5)
        assert pattern.flat[np.abs(pattern).argmax()] > 0


@pytest.mark.parametrize("name", ["kpac_2level", "kpac_dual"])
def test_effective_receptive_field_ends_where_the_layers_do(name):
    network = model(name, width=4, blocks=1, shape_attention=False)
    field = effective_receptive_field(network, side=513, images=1)
    assert field.influence.sum() == pytest.approx(1)
    rows = np.flatnonzero(field.influence.sum(axis=1))
    assert (256 - rows[0], rows[-1] - 256) == field.reach
    assert field.radius(0.5) < field.radius(0.99) < max(field.reach)
    inside = field.influence[256 - field.radius(0.9) : 257 + field.radius(0.9)][
        :, 256 - field.radius(0.9) : 257 + field.radius(0.9)
    ]
    assert inside.sum() >= 0.9


def test_sheets_and_numbers_of_a_synthetic_set(capsys, tmp_path, data_root):
    weights = tmp_path / "m.safetensors"
    kpac.save_model(model(width=4), weights)
    output = tmp_path / "sheets"
    assert main(["inspect", str(weights), "--data", str(data_root), "-o", str(output)]) == 0
    result = json.loads((output / "inspect.json").read_text())
    assert len(result["images"]) == 2
    table = capsys.readouterr().out
    for image in result["images"]:
        for block in image["blocks"]:
            for correlation in (block["rank_correlation"], block["rank_correlation_of_weight"]):
                assert -1 <= correlation <= 1
                assert f"{correlation:+.2f}" in table
            assert len(block["shape_attention"]) == 4
    for name in ("model", *(image["name"] for image in result["images"])):
        assert (output / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (output / f"{name}.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    "options", [{"scale_attention": False}, {"shape_attention": False}, {"share_kernel": False}], ids=str
)
def test_ablated_networks_are_drawn_as_far_as_they_go(tmp_path, options):
    weights = tmp_path / "m.safetensors"
    kpac.save_model(model(width=4, blocks=1, **options), weights)
    write_pixels(tmp_path / "large.png", from_float(texture(60, 90, 0), 8))
    arguments = ["inspect", weights, tmp_path / "large.png", "-o", tmp_path / "out", "--longest-side", "45"]
    assert main([str(argument) for argument in arguments]) == 0
    result = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert result["images"][0]["size"] == [30, 45]
    assert result["images"][0]["reduced_from"] == [60, 90]
    assert {"large.png", "large.pdf", "model.png", "model.pdf", "inspect.json"} == {
        path.name for path in (tmp_path / "out").iterdir()
    }


@pytest.mark.parametrize("size", [(1, 1), (2, 3000), (3000, 2)], ids=str)
def test_photographs_of_odd_shapes_are_drawn(recwarn, tmp_path, size):
    weights = tmp_path / "m.safetensors"
    kpac.save_model(model(width=4, blocks=1), weights)
    write_pixels(tmp_path / "odd.png", from_float(texture(*size, 0), 8))
    assert main(["inspect", str(weights), str(tmp_path / "odd.png"), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "odd.png").is_file()
    assert [str(warning.message) for warning in recwarn if "layout" in str(warning.message)] == []


def test_dual_pixel_photograph_is_drawn_with_its_views(capsys, tmp_path):
    weights = tmp_path / "dual.safetensors"
    network = model("kpac_dual", width=4)
    kpac.save_model(network, weights)
    for seed, name in enumerate(("center", "left", "right")):
        write_pixels(tmp_path / name / "one.png", from_float(texture(40, 56, seed), 8))
    center, left, right = (tmp_path / name / "one.png" for name in ("center", "left", "right"))
    words = ["inspect", str(weights), str(center), "-o", str(tmp_path / "out"), "--left", str(left)]
    assert main([*words, "--right", str(right.parent)]) == 0
    assert "block 1" in capsys.readouterr().out
    _, blocks = attention_of(network, *(to_float(read_pixels(path)) for path in (center, left, right)))
    found = json.loads((tmp_path / "out" / "inspect.json").read_text())["images"][0]["blocks"]
    for block, numbers in zip(blocks, found, strict=True):
        np.testing.assert_allclose(numbers["shape_attention"], block.shape, atol=1e-6)
    assert "name them with --right" in fails(capsys, *words)
    assert "no such file" in fails(capsys, *words, "--right", tmp_path / "gone.png")
    without_photo = [word for word in words if word != str(center)]
    assert "expected PHOTO, the center view, too" in fails(capsys, *without_photo)


def test_network_without_blocks_has_its_receptive_field_drawn(capsys, tmp_path):
    kpac.save_model(model(width=4, block="plain"), tmp_path / "plain.safetensors")
    assert main(["inspect", str(tmp_path / "plain.safetensors"), "-o", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.png", "model.pdf", "inspect.json"}
    assert "contributes" not in capsys.readouterr().out


def test_mistakes_are_one_line(capsys, tmp_path, data_root):
    plain, dual = tmp_path / "plain.safetensors", tmp_path / "dual.safetensors"
    kpac.save_model(model(width=4, block="plain"), plain)
    kpac.save_model(model("kpac_dual", width=4), dual)
    assert "no KPAC blocks" in fails(capsys, "inspect", plain, "--data", data_root, "-o", tmp_path / "out")
    assert "name a data set with --data" in fails(capsys, "inspect", dual, "-o", tmp_path / "out")
    line = fails(capsys, "inspect", plain, data_root, "--data", data_root, "-o", tmp_path / "out")
    assert "give one of the two" in line
    line = fails(capsys, "inspect", plain, "a/one.png", "b/one.png", "-o", tmp_path / "out")
    assert "a/one.png and b/one.png: both sheets would be one.png" in line
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="no KPAC blocks"):
        attention_of(model(block="plain"), texture(8, 8, 0).astype(np.float32))
