"""A small network and photographs to restore with it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kpac
from kpac.images import from_float, write_pixels
from tests.conftest import texture


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """The weights of a small KPAC network."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("network") / "net.safetensors"
    kpac.save_model(kpac.create_model("kpac_2level", width=4, blocks=1, init="he"), path)
    return path


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> dict[str, Path]:
    """A photograph of 8 bits that lies turned, one of 16 bits, and a file that is none."""
    folder = tmp_path_factory.mktemp("photographs")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    exif[0x010F] = "camera"
    Image.fromarray(from_float(texture(70, 100, 0), 8)).save(folder / "it's <b>turned.jpg", exif=exif, quality=95)
    write_pixels(folder / "deep.tif", from_float(texture(64, 90, 1), 16))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(np.arange(200, dtype=np.uint8)))
    return {"turned": folder / "it's <b>turned.jpg", "deep": folder / "deep.tif", "broken": folder / "broken.png"}
