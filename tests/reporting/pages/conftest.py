"""Pages of small results, and a browser to look at them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from kpac.cli import main
from kpac.images import from_float, write_pixels
from tests.conftest import texture

HOSTILE = "<img src=x onerror=document.title='owned'>"
QUOTED = """it's "quoted" $(touch here) ü 日本"""
SCENES = ("plain", HOSTILE, QUOTED)
SIZE = (90, 130)


def write_set(folder: Path, names=SCENES, size=SIZE, bit_depth: int = 8) -> Path:
    """A data set in the layout "paired": targets, and inputs that are averages of neighbours."""
    for number, name in enumerate(names):
        sharp = texture(*size, seed=number)
        blurred = np.mean([np.roll(sharp, shift, axis) for shift in (-2, 0, 2) for axis in (0, 1)], axis=0)
        write_pixels(folder / "target" / f"{name}.png", from_float(sharp, bit_depth))
        write_pixels(folder / "input" / f"{name}.png", from_float(blurred, bit_depth))
    return folder


def write_outputs(folder: Path, data: Path, share: float) -> Path:
    """Outputs of a method: so much of the target, the rest input."""
    from kpac.images import bits, read_pixels, to_float

    for path in sorted((data / "target").iterdir()):
        target, blurred = (read_pixels(data / role / path.name) for role in ("target", "input"))
        mixed = share * to_float(target) + (1 - share) * to_float(blurred)
        write_pixels(folder / path.name, from_float(mixed, bits(target)))
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with a data set, the outputs of two methods, and their results."""
    folder = tmp_path_factory.mktemp("pages")
    data = write_set(folder / "set")
    images = []
    for label, share in (("half", 0.5), ("most", 0.9)):
        images += ["--images", f"{label}={write_outputs(folder / label, data, share)}"]
    assert main(["evaluate", *images, "--data", str(data), "--output", str(folder / "results")]) == 0
    return folder


@pytest.fixture(scope="session")
def view(made) -> Path:
    """The pages of these results."""
    assert main(["view", str(made / "results"), "--output", str(made / "view")]) == 0
    return made / "view"


def line(kind: str, iteration: int, **values) -> str:
    """A line of metrics.jsonl."""
    return json.dumps({"kind": kind, "iteration": iteration, **values}) + "\n"


@pytest.fixture
def run(tmp_path) -> Path:
    """A run of 40 iterations that has done 20, as the trainer writes it."""
    folder = tmp_path / "runs" / "a & <b>b"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("train: {iterations: 40}\n")
    lines = [line("train", step, loss=1 / step, learning_rate=1e-3) for step in (5, 10, 15, 20)]
    lines += [line("val", 10, psnr=20.0), line("val", 20, psnr=None), '{"kind": "train", "itera']
    (folder / "metrics.jsonl").write_text("".join(lines))
    with SummaryWriter(str(folder / "tensorboard")) as events:
        for step in (10, 20):
            events.add_image("val/<i>scene</i>", torch.full((3, 20, 60), step / 40), step)
    return folder
