"""Measures whole commands: a cold start, an evaluation with its metrics, and the time that training waits for data.

    python benchmarks/commands.py [--frames 4]

All inputs are made in a temporary folder: random weights, and photographs of noise, since the content does not affect
the times. Takes about three minutes on two CPU cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from kpac import create_model, save_model
from kpac.images import write_pixels
from kpac.text import markdown_table

ROOT = Path(__file__).parents[1]
FRAME = (1120, 1680)
DPDD_TEST = 76  # images of DPDD's test split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=4)
    frames = parser.parse_args().frames
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(create_model("kpac_2level"), folder / "paper.safetensors")
        save_model(create_model("kpac_2level", width=4, blocks=1), folder / "tiny.safetensors")
        write_noise(folder / "photo.png", (64, 64), 8)
        for split, count, size in (("test", frames, FRAME), ("train", 4, (560, 840)), ("val", 1, (96, 96))):
            for index in range(count):
                for role in ("source", "target"):
                    write_noise(folder / "data" / f"{split}_c" / role / f"{index}.png", size, 16)
        rows = [
            [label, f"{seconds:.1f}"]
            for label, seconds in (
                ("python -c 'import torch'", timed([sys.executable, "-c", "import torch"])),
                ("kpac --help", kpac("--help")),
                ("kpac restore --help", kpac("restore", "--help")),
                (
                    "kpac restore, of 64x64 pixels, by a tiny network",
                    kpac("restore", folder / "photo.png", "-m", folder / "tiny.safetensors", "-o", folder / "restored"),
                ),
                evaluation(folder, frames),
            )
        ]
        print(markdown_table(["command", "seconds"], rows))
        print(f"\na training of 256x256 crops, batch 8, waits {waiting(folder):.1%} of its time for data")


def evaluation(folder: Path, frames: int) -> tuple[str, float]:
    """Seconds for DPDD's test split, extrapolated from a few frames."""
    words = ["--data", folder / "data", "--device", "cpu", "--output", folder / "results"]
    whole = kpac("evaluate", folder / "paper.safetensors", *words)
    again = kpac("evaluate", folder / "paper.safetensors", *words)  # scores no image again: all other time
    return f"kpac evaluate, {DPDD_TEST} frames, from {frames}", (whole - again) / frames * DPDD_TEST + again


def waiting(folder: Path) -> float:
    """Share of the training time spent waiting for data."""
    settings = [
        *(f"data.root={folder / 'data'}", f"runs={folder / 'runs'}", f"data.cache={folder / 'cache'}"),
        *("name=wait", "device=cpu", "data.crop=256", "train.iterations=40", "train.log_every=20"),
        *("train.batch_size=8", "train.schedule.warmup=0", "validation.every=40"),
    ]
    kpac("train", ROOT / "configs" / "quickstart.yaml", *settings)
    lines = (folder / "runs" / "wait" / "metrics.jsonl").read_text().splitlines()
    return [entry["data_wait"] for entry in map(json.loads, lines) if "data_wait" in entry][-1]


def kpac(*words: object) -> float:
    return timed([sys.executable, "-m", "kpac", *map(str, words)])


def timed(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - start


def write_noise(path: Path, size: tuple[int, int], bits: int) -> None:
    dtype = np.uint16 if bits == 16 else np.uint8
    write_pixels(path, np.random.default_rng(0).integers(0, 2**bits, (*size, 3), dtype=dtype))


if __name__ == "__main__":
    main()
