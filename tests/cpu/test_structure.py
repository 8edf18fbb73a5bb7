"""A network that is put together in another way is computed as its layers would, or refused; in bands and in tiles."""

from functools import partial

import pytest
import torch
from torch import nn

from kpac.cpu import accelerate, banded, runs_in_bands
from kpac.models.layers import Conv, DownConv, UpConv
from kpac.models.network import DecoderStage, KPACNet
from kpac.restore.memory import LiveBytes, peak_bytes
from kpac.restore.tiling import restore_in_tiles
from tests.models import golden

WIDTH, DEEP = 8, 16  # channels of the first level and of the blocks


def with_another_stage() -> KPACNet:
    network = KPACNet(width=WIDTH)
    network.encoder.append(nn.Sequential(DownConv(DEEP, DEEP), Conv(DEEP, DEEP, 3)))
    network.decoder.insert(0, DecoderStage(DEEP, DEEP, Conv(2 * DEEP, DEEP, 3)))
    network.multiple *= 2
    return network


def with_other_chains() -> KPACNet:
    network = KPACNet(width=WIDTH)
    network.encoder[0].append(Conv(WIDTH, WIDTH, 3))
    network.encoder[1].append(Conv(WIDTH, WIDTH, 5))
    del network.encoder[2][1]
    network.blocks[0].scale_attention.features.append(Conv(16, 16, 3))
    network.blocks.append(nn.Sequential(Conv(DEEP, DEEP, 3)))
    network.fusion[0] = Conv(4 * DEEP, DEEP, 3)
    network.fusion.append(Conv(DEEP, DEEP, 3))
    return network


def replaced(name: str, module: nn.Module) -> KPACNet:
    network = KPACNet(width=WIDTH)
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)
    return network


BANDED = {
    "one level": lambda: KPACNet(levels=1, width=WIDTH),
    "four levels": lambda: KPACNet(levels=4, width=WIDTH),
    "another stage": with_another_stage,
    "other chains": with_other_chains,
}
OTHERS = {  # the module's name, and what stands there instead
    "encoder.0": Conv(3, WIDTH, 5),
    "encoder.1.1": nn.Conv2d(WIDTH, WIDTH, 3, padding=1),  # no activation
    "encoder.2": nn.Sequential(Conv(WIDTH, WIDTH, 3), DownConv(WIDTH, DEEP)),
    "blocks.0.scale_attention.features.1": nn.Conv2d(32, 32, 1),
    "blocks.0.scale_attention.weigh": Conv(16, 5, 5),
    "blocks.1": nn.Sequential(nn.Conv2d(DEEP, DEEP, 1)),
    "fusion.1": nn.Sequential(UpConv(DEEP, DEEP), DownConv(DEEP, DEEP)),
    "decoder.0.merge": nn.Sequential(Conv(2 * WIDTH, WIDTH, 3), Conv(WIDTH, WIDTH, 3)),
    "decoder.1.merge": Conv(2 * WIDTH, 3, 5),
}


@pytest.mark.parametrize("variant", [*BANDED, *OTHERS])
def test_bands_and_tiles_compute_what_the_layers_do(variant, monkeypatch):
    monkeypatch.setattr(banded, "BAND_BYTES", 1)
    make = BANDED.get(variant) or partial(replaced, variant, OTHERS.get(variant))
    plain = golden.randomize(make())
    quick, views = accelerate(plain), torch.rand(1, 3, 75, 101, generator=torch.Generator().manual_seed(0))
    assert runs_in_bands(quick) == (variant in BANDED)
    with torch.inference_mode():
        expected = plain(views)
        changed = (expected - views).abs().max()
        assert changed > 1e-2
        for model in (plain, quick):
            for found in (model(views), restore_in_tiles(model, [views], 24, torch.device("cpu"))):
                assert (found - expected).abs().max() < 1e-5 * max(1, changed)


@pytest.mark.parametrize("variant", BANDED)
def test_estimate_of_memory_follows_the_structure(variant, monkeypatch):
    monkeypatch.setattr(banded, "BAND_BYTES", 1)
    monkeypatch.setattr(banded, "CHAIN_BYTES", 1)
    quick = accelerate(golden.randomize(BANDED[variant]()))
    views = torch.rand(1, 3, 480, 320).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), LiveBytes() as live:
        quick(views)
    assert peak_bytes(quick, 480, 320) == pytest.approx(live.peak + views.nbytes, rel=0.1)


def test_stage_whose_stride_was_forgotten_is_refused():
    network = golden.randomize(with_another_stage())
    network.multiple //= 2
    for model in (network, accelerate(network)):
        with torch.inference_mode(), pytest.raises((RuntimeError, ValueError), match="size"):
            model(torch.rand(1, 3, 28, 36))


@pytest.mark.parametrize("size", [(73, 64), (64, 75)])
def test_residual_of_a_size_that_does_not_fit_is_refused(size):
    network = golden.randomize(KPACNet(width=WIDTH))
    for model in (network, accelerate(network)):
        with torch.inference_mode(), pytest.raises((RuntimeError, ValueError), match="size"):
            model.residual(torch.rand(1, 3, *size))
