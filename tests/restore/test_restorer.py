"""Arrays in, restored arrays out; what does not fit is said in one line."""

import numpy as np
import pytest
import torch

import kpac
from kpac.commands.remedies import explain
from kpac.cpu import THREAD_BYTES, accelerate, missing
from kpac.cpu.conditions import has_bfloat16
from kpac.errors import UserError
from kpac.restore import memory, restorer, tiling
from tests.conftest import texture
from tests.models import golden


@pytest.fixture
def model() -> torch.nn.Module:
    return golden.randomize(kpac.create_model("kpac_2level", width=4, blocks=1))


def photo(height: int = 45, width: int = 62, seed: int = 0) -> np.ndarray:
    return texture(height, width, seed).astype(np.float32)


class Outsider(torch.nn.Module):
    """A network of another kind."""

    views = ("center",)
    config = {"name": "outsider"}

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        return self.layer(views)


class Glutton(Outsider):
    """Needs more memory than an address can name."""

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        return torch.empty(1, 3, 2**24, 2**24, device=views.device)


def test_array_comes_back_restored_and_clamped(model):
    image = photo()
    with torch.no_grad():
        expected = model(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0).clamp(0, 1).numpy()
    before = image.copy()
    restored = kpac.Restorer(model, tile=None, device="cpu")(image)
    assert restored.dtype == np.float32
    assert restored.flags.c_contiguous
    np.testing.assert_allclose(restored, expected, atol=1e-5)
    assert (restored.min(), restored.max()) == (0, 1)
    assert np.array_equal(image, before)
    np.testing.assert_allclose(kpac.Restorer(model, tile=16, device="cpu")(image), expected, atol=1e-5)


def test_dual_pixel_views_go_in_beside_the_center_view():
    model = golden.randomize(kpac.create_model("kpac_dual", width=4, blocks=1))
    views = [photo(seed=seed) for seed in range(3)]
    with torch.no_grad():
        stacked = torch.cat([torch.from_numpy(view).permute(2, 0, 1) for view in views])[None]
        expected = model(stacked)[0].permute(1, 2, 0).clamp(0, 1).numpy()
    for tile in (None, 16):
        restored = kpac.Restorer(model, tile, device="cpu")(views[0], left=views[1], right=views[2])
        np.testing.assert_allclose(restored, expected, atol=1e-5)
    with pytest.raises(UserError, match="also reads dual-pixel views") as error:
        kpac.Restorer(model, device="cpu")(views[0])
    assert error.value.values == {"views": ["left", "right"]}
    with pytest.raises(UserError, match="right view is 20x20 pixels, not 62x45 like the center"):
        kpac.Restorer(model, device="cpu")(views[0], views[1], photo(20, 20))


def test_views_that_the_network_does_not_read_are_refused(model):
    with pytest.raises(UserError, match="reads only the center view") as error:
        kpac.Restorer(model, device="cpu")(photo(), left=photo())
    assert explain(error.value).endswith("; leave out --left")


@pytest.mark.parametrize("wrong", [photo()[..., 0], photo()[..., :2], photo().astype(np.float64), photo()[:0]])
def test_arrays_of_another_kind_are_refused(model, wrong):
    with pytest.raises(ValueError, match="expected an H x W x 3 float32 array"):
        kpac.Restorer(model, device="cpu")(wrong)


def test_automatic_tile_is_the_largest_that_fits(monkeypatch, model):
    chooser = kpac.Restorer(model, "auto", device="cpu")
    sizes = {tile: chooser.estimate_bytes(3000, 2000, tile) for tile in (None, *restorer.TILES)}
    assert sizes[None] > sizes[1024] > sizes[512] > sizes[256] > sizes[128]
    for room, expected in [
        (sizes[None], None),
        (sizes[None] - 1, 1024),
        (sizes[512], 512),
        (sizes[256] + 1, 256),
        (0, 128),
    ]:
        monkeypatch.setattr(restorer, "available_bytes", lambda device, room=room: room)
        assert chooser.choose_tile(3000, 2000) == expected
    assert kpac.Restorer(Outsider(), device="cpu").choose_tile(3000, 2000) is None
    assert kpac.Restorer(Outsider(), device="cpu", approximate=True).choose_tile(3000, 2000) == 128


def test_estimate_follows_what_tensors_take(model):
    views = torch.rand(1, 3, 64, 96)
    with torch.inference_mode(), memory.LiveBytes() as live:
        model(views)
    estimate = memory.peak_bytes(model, 64, 96)
    assert estimate == pytest.approx(live.peak + views.numel() * 4, rel=0.02)
    assert memory.peak_bytes(model, 128, 192) == pytest.approx(4 * estimate, rel=0.01)
    assert memory.peak_bytes(model, 64, 96, torch.bfloat16) == pytest.approx(estimate / 2, rel=0.01)
    assert 0 < memory.available_bytes(torch.device("cpu")) < 2**50


@pytest.mark.skipif(bool(missing()), reason="needs Numba")
def test_estimate_follows_an_accelerated_pass():
    model = golden.randomize(kpac.create_model("kpac_2level", width=48, blocks=1))
    views = torch.rand(1, 3, 640, 480)
    with torch.inference_mode(), memory.LiveBytes() as live:
        accelerate(model)(views)
    whole = kpac.Restorer(model, device="cpu").estimate_bytes(640, 480, None)
    assert live.peak < whole < 1.5 * live.peak + THREAD_BYTES * torch.get_num_threads()
    lower = kpac.Restorer(model, device="cpu", precision="bfloat16").estimate_bytes(640, 480, None)
    by_layers = int(restorer.OVERHEAD * memory.peak_bytes(model, 640, 480, torch.bfloat16))
    assert lower == (whole if has_bfloat16() else by_layers)


def test_other_networks_are_tiled_only_approximately():
    with pytest.raises(UserError, match="'outsider' cannot be tiled exactly"):
        kpac.Restorer(Outsider(), tile=64, device="cpu")
    model, image = Outsider(), photo(90, 100)
    whole = kpac.Restorer(model, tile=None, device="cpu")(image)
    tiled = kpac.Restorer(model, tile=40, device="cpu", approximate=True)(image)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


@pytest.mark.parametrize(
    ("tile", "words"), [(None, "62x45 pixels whole; smaller tiles"), (40, "in tiles of 40; smaller tiles")]
)
def test_out_of_memory_names_the_tile_to_try(tile, words):
    with pytest.raises(UserError, match="out of memory for") as caught:
        kpac.Restorer(Glutton(), tile, device="cpu", approximate=True)(photo())
    assert words in str(caught.value)
    assert explain(caught.value).endswith("; try --tile 128")


def test_other_errors_of_a_network_are_not_taken_for_memory(model):
    model.decoder = None
    with pytest.raises(TypeError):
        kpac.Restorer(model, tile=None, device="cpu")(photo())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_leaves_the_image_itself_alone(precision):
    model = kpac.create_model("kpac_2level", width=4, blocks=1, init="he")  # untrained: the identity
    image = photo()
    restored = kpac.Restorer(model, tile=None, precision=precision, device="cpu")(image)
    np.testing.assert_allclose(restored, image, atol=1e-6)
    golden.randomize(model)
    exact = kpac.Restorer(model, tile=None, device="cpu")(image)
    lower = kpac.Restorer(model, tile=None, precision=precision, device="cpu")(image)
    assert 1e-6 < np.abs(lower - exact).max() < 0.1


@pytest.mark.gpu
def test_float32_on_a_gpu_is_float32(model):
    image = photo(300, 400)
    on_gpu = kpac.Restorer(model, tile=None, precision="float32", device="cuda")(image)
    on_cpu = kpac.Restorer(model, tile=None, device="cpu")(image)
    np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tile", [None, 16])
def test_output_that_is_not_a_number_is_refused_and_not_clamped(model, value, tile):
    model.fusion[-1].bias.data[0] = float(value)
    with pytest.raises(UserError, match=r"8,\d+ of 8,370 values of the output are NaN or infinite: the weights"):
        kpac.Restorer(model, tile=tile, device="cpu")(photo())
    with pytest.raises(UserError, match=r"computed in bfloat16; float32 is more exact") as error:
        kpac.Restorer(model, tile=tile, device="cpu", precision="bfloat16")(photo())
    assert explain(error.value).endswith("; try --precision float32")


def test_large_but_finite_output_is_clamped():
    model = Outsider()
    model.layer.weight.data.zero_()
    model.layer.bias.data.fill_(torch.finfo(torch.float32).max)  # whose sum is infinite
    assert (kpac.Restorer(model, device="cpu")(photo()) == 1).all()


def test_automatic_tiles_get_smaller_when_memory_runs_out(model, monkeypatch):
    """The memory that a GPU has is asked for before, and other programs take of it meanwhile."""
    tried = []
    restore = kpac.Restorer._restore

    def fits_from_256_on(self, views, tile):
        tried.append(tile)
        if tile is None or tile > 256:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return restore(self, views, tile)

    monkeypatch.setattr(kpac.Restorer, "_restore", fits_from_256_on)
    restored = kpac.Restorer(model, device="cpu")(photo())
    assert tried == [None, 1024, 512, 256]
    np.testing.assert_allclose(restored, kpac.Restorer(model, tile=256, device="cpu")(photo()), atol=1e-6)
    tried.clear()
    with pytest.raises(UserError, match="out of memory for 62x45 pixels in tiles of 512"):
        kpac.Restorer(model, tile=512, device="cpu")(photo())
    assert tried == [512]


def test_memory_goes_back_to_the_system_after_the_tiles_of_a_cpu_alone(model, monkeypatch):
    calls = []
    monkeypatch.setattr(tiling, "hand_back_freed", lambda: calls.append(1))
    passes = [tiling._TiledPass(model, [torch.zeros(1, 3, 16, 16)], 16, torch.device(name)) for name in ("cuda", "cpu")]
    passes[0].hand_back_freed()
    assert calls == []
    passes[1].hand_back_freed()
    assert calls == [1]
