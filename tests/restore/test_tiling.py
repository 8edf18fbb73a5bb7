"""Tiles give what one pass gives, at bounded memory."""

import pytest
import torch

from kpac import create_model
from kpac.cpu import accelerate, winograd
from kpac.restore import tiling
from kpac.restore.approximate import restore_approximately
from kpac.restore.memory import LiveBytes
from kpac.restore.rectangles import Area
from kpac.restore.tiling import kept_values, restore_in_tiles
from tests.models import golden

CPU = torch.device("cpu")
OPTIONS = [
    {},
    {"shape_attention": False},
    {"scale_attention": False},
    {"blocks": 1},
    {"blocks": 0},
    {"block": "plain"},
    {"dilations": (1, 9), "kernel_size": 3},
    {"shape_pooling": {"window": (40, 64)}},
    {"shape_pooling": {"window": (1000, 24)}},
]


def model_and_views(name: str, height: int, width: int, **options) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    """A network in which every part shows, and an image that is dark on one side, so that tiles' means differ."""
    model = golden.randomize(create_model(name, **({"width": 4} | options)))
    generator = torch.Generator().manual_seed(height)
    views = [torch.rand(1, 3, height, width, generator=generator) for _ in model.views]
    for view in views:
        view[..., : width // 2] *= 0.2
    return model, views


def largest_difference(model, views, tile: int) -> float:
    with torch.inference_mode():
        return (restore_in_tiles(model, views, tile, CPU) - model(torch.cat(views, dim=1))).abs().max().item()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", ["kpac_2level", "kpac_3level", "kpac_dual"])
def test_tiles_give_the_whole_image(name, options):
    model, views = model_and_views(name, 133, 151, **options)
    assert largest_difference(accelerate(model), views, 48) < 1e-5


@pytest.mark.parametrize("options", [{}, {"shape_pooling": {"window": (40, 64)}}], ids=str)
def test_tiles_of_a_plain_network_give_the_whole_image(options):
    model, views = model_and_views("kpac_2level", 133, 151, **options)
    assert largest_difference(model, views, 48) < 1e-5


def test_tiles_of_transformed_convolutions_give_the_whole_image(monkeypatch):
    monkeypatch.setattr(winograd, "CHANNELS", 1)
    model, views = model_and_views("kpac_2level", 133, 151)
    assert largest_difference(accelerate(model), views, 46) < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (1, 130), (3, 5), (64, 96), (97, 33), (121, 122)], ids=str)
@pytest.mark.parametrize("name", ["kpac_2level", "kpac_dual"])
def test_any_size_can_be_tiled(name, size):
    model, views = model_and_views(name, *size)
    assert largest_difference(model, views, 32) < 1e-5


@pytest.mark.parametrize("tile", [1, 30, 100_000])
def test_any_tile_will_do(tile):
    model, views = model_and_views("kpac_2level", 21, 34)
    assert largest_difference(model, views, tile) < 1e-5


@pytest.mark.parametrize("stage", ["encoder_reads", "block_reads", "decoder_reads"])
def test_halo_is_as_wide_as_needed(monkeypatch, stage):
    model, views = model_and_views("kpac_2level", 133, 151, shape_attention=False, blocks=1)
    narrow = {
        "encoder_reads": lambda given: tiling.Span(given.first + 4, given.last - 4),
        "block_reads": lambda given: tiling.Span(given.first + 1, given.last - 1),
        "decoder_reads": lambda given: (tiling.Span(given[0].first + 2, given[0].last - 2), tiling.Span(0, 0)),
    }[stage]
    original = getattr(tiling, stage)
    monkeypatch.setattr(tiling, stage, lambda *arguments: narrow(original(*arguments)))
    assert largest_difference(model.double(), [view.double() for view in views], 48) > 1e-7


def test_mean_over_the_whole_image_makes_the_difference():
    model, views = model_and_views("kpac_2level", 133, 151)
    with torch.inference_mode():
        approximate = restore_approximately(model, views, 48, CPU)
        assert (approximate - model(views[0])).abs().max() > 1e-4


@pytest.mark.parametrize("tile", [20, 48, 200])
def test_approximate_tiles_of_a_network_that_looks_less_far_than_half_the_overlap_are_exact(tile):
    model = torch.nn.Conv2d(3, 3, 31, padding=15)
    views = [torch.rand(1, 3, 133, 151)]
    with torch.inference_mode():
        torch.testing.assert_close(restore_approximately(model, views, tile, CPU), model(views[0]), atol=1e-5, rtol=0)


def test_memory_of_tiles_does_not_grow_with_the_image_but_for_what_is_kept():
    model = golden.randomize(create_model("kpac_2level", width=8, blocks=2))
    sides = small, large = 384, 576  # of which the halo of a tile of 32 covers a part
    peaks = {}
    for side in sides:
        views = [torch.rand(1, 3, side, side)]
        for tile in (None, 32):
            with torch.inference_mode(), LiveBytes() as live:
                output = model(views[0]) if tile is None else restore_in_tiles(model, views, tile, CPU)
                del output
            peaks[side, tile] = live.peak
    grown = large**2 - small**2
    kept = 4 * (kept_values(model, large, large, 32) - kept_values(model, small, small, 32) + 6 * grown)
    # What the two blocks read, the image, the output, and a band of a few rows.
    assert kept < 4 * (2 * 16 / 16 + 6 + 0.5) * grown
    assert peaks[large, None] > 2 * peaks[small, None]
    assert peaks[large, 32] - peaks[small, 32] < 1.2 * kept
    assert peaks[large, 32] < peaks[large, None] / 3


def test_bfloat16_tiles_agree_with_the_whole_within_its_precision():
    model, views = model_and_views("kpac_2level", 70, 90)
    model = accelerate(model)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(restore_in_tiles(model, views, 48, CPU), model(views[0]).float(), atol=0.05, rtol=0)


def test_tiles_cover_an_area_once_and_none_is_too_large():
    area = Area(3, 44, 5, 18)
    covered = torch.zeros(1, 1, 50, 20)
    for tile in area.tiles(10, 13):
        assert 0 < tile.bottom - tile.top <= 10
        assert 0 < tile.right - tile.left <= 13
        tile.of(covered).add_(1)
    assert area.of(covered).unique().tolist() == [1]
    assert covered.sum() == area.size


@pytest.mark.gpu
def test_tiles_give_the_whole_image_on_a_gpu():
    from kpac import Restorer

    model, views = model_and_views("kpac_dual", 203, 331)
    arrays = [view[0].permute(1, 2, 0).contiguous().numpy() for view in views]
    results = [Restorer(model, tile, precision="float32", device="cuda")(*arrays) for tile in (None, 96)]
    assert abs(results[0] - results[1]).max() < 1e-5
