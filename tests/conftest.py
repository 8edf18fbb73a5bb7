"""Small real inputs that many tests share."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kpac.data.camera import SynthesisSettings
from kpac.data.images import from_float, write_pixels
from kpac.data.photos import folder_photos
from kpac.data.synthetic import synthesize

torch.set_num_threads(2)


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


@pytest.fixture(scope="session")
def data_root(tmp_path_factory) -> Path:
    """A data set in DPDD's layout: 4 training, 1 validation and 1 test photograph, each rendered twice."""
    folder = tmp_path_factory.mktemp("synthetic")
    photos = folder_photos(write_photos(folder / "photos", 6), None, val=0.1, test=0.1, seed=0)
    return synthesize(photos, folder / "data set", SynthesisSettings(f_number=1.4), workers=2)


@pytest.fixture
def config_file(tmp_path, data_root) -> Path:
    """The quickstart's configuration, reduced to seconds, on `data_root`."""
    quickstart = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
    path = tmp_path / "small.yaml"
    path.write_text(
        f"""
extends: {quickstart}
name: small
runs: {tmp_path / "runs"}
device: cpu
model: {{width: 4, blocks: 1}}
data: {{root: {data_root}, crop: 32, workers: 0, cache: {tmp_path / "cache"}}}
train: {{iterations: 6, batch_size: 2, log_every: 2}}
validation: {{every: 3}}
"""
    )
    return path
