"""Small real inputs that many tests share."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from kpac.cpu import accelerate
from kpac.data.batches import PackedBatch
from kpac.data.dataset import Crop
from kpac.data.synthesis.dataset import synthesize
from kpac.data.synthesis.photos import folder_photos
from kpac.data.synthesis.settings import SynthesisSettings
from kpac.images import from_float, write_pixels
from tests.browser import browser, page  # noqa: F401 (here alone: a second copy would start a second driver)

torch.set_num_threads(2)
if find_spec("numba") is None:
    accelerate(torch.nn.Identity())  # says so here, once a process, and not in a test of what is said
os.environ["KPAC_OFFLINE"] = "1"  # no test waits for a network

ROOT = Path(__file__).parents[1]
NETWORKS = ROOT / "tests" / "networks.py"

# Processes that tests start, wherever they start them, run this checkout: the installed package may be another one.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests marked `gpu` where there are fewer CUDA devices than they need."""
    for item in items:
        marker = item.get_closest_marker("gpu")
        needed = marker.kwargs.get("devices", 1) if marker else 0
        if torch.cuda.device_count() < needed:
            item.add_marker(pytest.mark.skip(reason=f"needs {needed} CUDA device(s)"))


@pytest.fixture(autouse=True)
def no_gpu_unless_marked(request, monkeypatch):
    """Tests without the marker `gpu` see no CUDA device, nor do the processes that they start: "auto" is a CPU."""
    if not request.node.get_closest_marker("gpu"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """A photograph-like image with detail at every size, H x W x 3 in [0, 1]."""
    generator = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(generator.standard_normal((height, width, 3)), axes=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    image = np.fft.irfft2(spectrum / (frequency + 0.02)[..., None], s=(height, width), axes=(0, 1))
    low, high = np.percentile(image, (1, 99))
    return np.clip((image - low) / (high - low), 0, 1)


def write_photos(folder: Path, count: int, height: int = 80, width: int = 112) -> Path:
    """Fills a folder with 8-bit photographs."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        write_pixels(folder / f"photo {index}.png", from_float(texture(height, width, index), 8))
    return folder


def unpacked(crop: Crop) -> dict[str, torch.Tensor]:
    """A crop as a training step sees it: "views" (3V, crop, crop) and "target" (3, crop, crop), float32 in [0, 1]."""
    batch = PackedBatch.pack([crop], start=0, size=1).unpack(torch.device("cpu"))
    return {"views": batch.views[0], "target": batch.target[0]}


@pytest.fixture(scope="session")
def data_root(tmp_path_factory) -> Path:
    """A data set in DPDD's layout: 4 training, 1 validation and 1 test photograph, each rendered twice."""
    folder = tmp_path_factory.mktemp("synthetic")
    photos = folder_photos(write_photos(folder / "photos", 6), None, val=0.1, test=0.1, seed=0)
    return synthesize(photos, folder / "data set", SynthesisSettings(f_number=1.4), workers=2)


@pytest.fixture
def config_file(tmp_path, data_root) -> Path:
    """The quickstart's configuration, reduced to seconds, on `data_root`."""
    quickstart = ROOT / "configs" / "quickstart.yaml"
    path = tmp_path / "small.yaml"
    path.write_text(
        f"""
extends: {quickstart}
name: small
seed: 0
runs: {tmp_path / "runs"}
device: cpu
model: {{width: 4, blocks: 1}}
data:
  root: {data_root}
  crop: 32
  augment: {{rotate: false, scale: null, noise: null}}
  workers: 0
  cache: {tmp_path / "cache"}
train:
  iterations: 6
  batch_size: 2
  log_every: 2
  ema_decay: null
  optimizer: {{learning_rate: 2e-3, groups: {{attention: null}}}}
  schedule: {{warmup: 20}}
  compute: {{threads: null}}
validation: {{every: 3}}
"""
    )
    return path


@pytest.fixture
def noisy_config(config_file, tmp_path) -> Path:
    """The small configuration, with a network that is random and, with DIE_AT=n, kills itself in its n-th pass.

    It averages weights, cuts crops of two sizes and accumulates gradients.
    """
    path = tmp_path / "noisy.yaml"
    path.write_text(
        f"""
extends: {config_file}
name: noisy
plugins: [{NETWORKS}]
model: {{name: noisy}}
train:
  iterations: 12
  batch_size: 4
  accumulate: 2
  progressive: [{{until: 5, crop: 16, batch_size: 8}}]
  ema_decay: 0.9
  log_every: 5
  checkpoint: {{every: 2}}
validation: {{every: 6}}
"""
    )
    return path
