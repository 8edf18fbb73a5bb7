"""Measures a training step, a frame and the data loader on a GPU, and compares them with the card's roofline.

    python benchmarks/gpu.py [--json FILE] [--profile FOLDER]
    python benchmarks/gpu.py --rehearse    # tiny sizes, also on a CPU: tests the code, the figures mean nothing

Measures the card's matrix products and copies first, then the paper's 2-level network in bfloat16: eager, with cuDNN's
benchmark mode, compiled, and replayed as CUDA graphs. Takes under three minutes on an H100.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from kpac import create_model
from kpac.config import load_config
from kpac.distributed import Ranks
from kpac.environment import device_name, usable_cores
from kpac.images import write_pixels
from kpac.models.registry import resolve_model
from kpac.precision import full_float32
from kpac.text import markdown_table
from kpac.training.trainer import Trainer

PAPER = Path(__file__).parents[1] / "configs" / "paper" / "kpac_2level.yaml"
WAYS = {
    "eager": ["train.compute.cudnn_benchmark=false"],
    "benchmark": [],
    "compiled": ["train.compute.compile=true"],
    "graphs": ["train.compute.compile=true", "train.compute.cuda_graphs=true"],
    "deterministic": ["train.compute.deterministic=true"],
}
GOALS = {"step eager": 7.0, "step best": 3.2, "frame": 4.0}  # milliseconds, on an H100
BATCHES = 350  # goal of the loader: batches per second, from the cache


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements.

    Args:
        crop, batch: side of the crops and batch size of a training step.
        frame: height and width of a whole image.
        products: side of the matrices for products.
        values: number of values in the tensor that is copied.
        steps: number of timed steps; as many warm-up steps come before.
        seconds: time for measuring the loader.
        options: overrides for the network and the training.
    """

    crop: int = 256
    batch: int = 8
    frame: tuple[int, int] = (1120, 1680)
    products: int = 8192
    values: int = 1 << 28
    steps: int = 40
    seconds: float = 6
    options: tuple[str, ...] = ()


SMALL = Sizes(32, 2, (64, 96), 64, 1 << 10, 2, 0.2, ("model.width=4", "model.blocks=1", "data.workers=1"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    if not options.rehearse and not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: no CUDA device; --rehearse runs it on a CPU")
    figures = measure(torch.device("cuda" if torch.cuda.is_available() else "cpu"), options.rehearse, options.profile)
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measure(device: torch.device, rehearse: bool = False, profile: Path | None = None) -> dict[str, Any]:
    """Measures all figures: times in milliseconds, the loader in batches per second."""
    sizes = SMALL if rehearse else Sizes()
    with full_float32():
        figures = {"device": device_name(device), "torch": torch.__version__, **card(device, sizes)}
    flops, copied = figures["products_tflops"] * 1e12, figures["copies_tb"] * 1e12
    crop = (sizes.crop, sizes.crop)
    figures["roofline step"] = 3e3 * sizes.batch * forward_roofline(crop, flops, copied)
    figures["roofline frame"] = 1e3 * forward_roofline(sizes.frame, flops, copied)
    with tempfile.TemporaryDirectory() as temporary:
        root = make_pairs(Path(temporary), *(2 * side for side in crop) if rehearse else sizes.frame)
        words = [f"data.root={root}", f"data.crop={sizes.crop}", f"train.batch_size={sizes.batch}", *sizes.options]
        for name, way in WAYS.items():
            if rehearse and name in ("compiled", "graphs"):
                continue  # compilation would take longer than everything else
            torch._dynamo.reset()
            torch.use_deterministic_algorithms(False)
            figures[f"step {name}"] = 1e3 * time_step(make_trainer([*words, *way], device), sizes)
        torch.use_deterministic_algorithms(False)
        for name, augment in {"loader": ["data.augment={}"], "loader augmented": []}.items():
            figures[name] = loader_speed(make_trainer([*words, *augment], device), sizes)
        trainer = make_trainer(words, device)
        figures["data_wait"] = waiting(trainer, sizes)
        if profile:
            write_profile(trainer, sizes, profile)
    figures["frame"] = 1e3 * time_frame(device, sizes)
    return figures


def card(device: torch.device, sizes: Sizes) -> dict[str, float]:
    """Speed of the card: bfloat16 matrix products in TFLOP/s, and copies in TB/s, counting reads and writes."""
    a = torch.rand(sizes.products, sizes.products, device=device).bfloat16()
    buffer = torch.empty(sizes.values, device=device)
    products = 2 * sizes.products**3 / median_seconds(lambda: a @ a)
    copies = 2 * buffer.nbytes / median_seconds(lambda: buffer.clone())
    return {"products_tflops": products / 1e12, "copies_tb": copies / 1e12}


def forward_roofline(size: tuple[int, int], flops: float, copied: float) -> float:
    """Minimum seconds for one image's convolutions in bfloat16, each limited by arithmetic or by memory traffic."""
    with Convolutions() as convolutions, torch.no_grad():
        create_model("kpac_2level").to("meta")(torch.empty(1, 3, *size, device="meta"))
    return sum(max(2 * macs / flops, 2 * values / copied) for macs, values in convolutions.found)


class Convolutions(TorchDispatchMode):
    """Records the multiply-accumulates of each convolution inside, and the number of values it reads and writes."""

    def __init__(self):
        super().__init__()
        self.found: list[tuple[int, int]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        if operation is torch.ops.aten.convolution.default:
            x, weight, transposed = args[0], args[1], args[6]
            macs = (x if transposed else result).numel() * weight[0].numel()
            self.found.append((macs, x.numel() + weight.numel() + result.numel()))
        return result


def make_pairs(root: Path, height: int, width: int) -> Path:
    """Makes a data set in DPDD's layout: smooth colour with sensor noise, 16 bits."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 1)):
        for index in range(count):
            for folder in ("source", "target"):
                coarse = generator.random((35, 52, 3), dtype=np.float32)
                image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 0.8 + 0.1
                image += generator.normal(0, 0.004, image.shape).astype(np.float32)
                pixels = (image.clip(0, 1) * 65535).astype(np.uint16)
                write_pixels(root / f"{split}_c" / folder / f"{index}.png", pixels)
    return root


def make_trainer(words: list[str], device: torch.device) -> Trainer:
    config = resolve_model(load_config(PAPER, [*words, f"device={device.type}", "train.schedule={name: constant}"]))
    trainer = Trainer(config, Ranks(0, 1, device))
    trainer.network = trainer.compute.compile(trainer.model)
    return trainer


@contextmanager
def loaded(trainer: Trainer) -> Iterator[Iterator[Any]]:
    """Context with an iterator over packed batches, starting from the first."""
    with trainer.data.batches(0, 0, trainer.compute.pinned) as packed:
        yield packed


def time_step(trainer: Trainer, sizes: Sizes) -> float:
    """Seconds per training step, including loss, optimizer and meter, for a batch that is already on the device."""
    with loaded(trainer) as packed:
        batch = next(trainer.compute.batches(packed))

    def steps() -> None:
        for _ in range(sizes.steps):
            trainer.step(batch)

    steps()  # warm-up: compiles, times cuDNN's algorithms, creates the optimizer's state
    return seconds(steps) / sizes.steps


def loader_speed(trainer: Trainer, sizes: Sizes) -> float:
    """Batches per second that arrive in this process, once the workers have started."""
    with loaded(trainer) as packed:
        for _ in range(2 * trainer.data.workers + 1):
            next(packed)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < sizes.seconds:
            next(packed)
            count += 1
        return count / (time.perf_counter() - start)


def waiting(trainer: Trainer, sizes: Sizes) -> float:
    """Share of the training time spent waiting for batches."""
    with loaded(trainer) as packed:
        batches = trainer.compute.batches(packed)
        for measured in (False, True):
            start, waited = time.perf_counter(), 0.0
            for _ in range(sizes.steps * (4 if measured else 1)):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                trainer.step(batch)
            synchronize()
    return waited / (time.perf_counter() - start)


def time_frame(device: torch.device, sizes: Sizes) -> float:
    """Seconds for a whole image in bfloat16 and channels last, without copies to and from the device."""
    model = create_model("kpac_2level").to(device, memory_format=torch.channels_last).eval()
    views = torch.rand(1, 3, *sizes.frame, device=device).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        return median_seconds(lambda: model(views))


def write_profile(trainer: Trainer, sizes: Sizes, folder: Path) -> None:
    """Writes a trace of five steps for Perfetto, and a table of the slowest operations."""
    folder.mkdir(parents=True, exist_ok=True)
    with loaded(trainer) as packed:
        batch = next(trainer.compute.batches(packed))
    trainer.step(batch)
    with torch.profiler.profile() as profile:
        for _ in range(min(5, sizes.steps)):
            trainer.step(batch)
        synchronize()
    profile.export_chrome_trace(str(folder / "trace.json"))
    on_gpu = torch.cuda.is_available()
    by = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    (folder / "profile.txt").write_text(profile.key_averages().table(sort_by=by, row_limit=40), encoding="utf-8")


def best_step(figures: dict[str, Any]) -> float:
    """Milliseconds of the fastest variant of a training step."""
    return min(figures[f"step {name}"] for name in WAYS if f"step {name}" in figures)


def table(figures: dict[str, Any]) -> str:
    """Table of the figures, with the roofline and the goals."""
    rows = []
    best = best_step(figures)
    for name, value in {**figures, "step best": best}.items():
        if name.split()[0] not in ("step", "frame"):
            continue
        roof = figures[f"roofline {name.split()[0]}"]
        goal = GOALS.get(name)
        rows.append([name, f"{value:.2f}", f"{roof:.2f}", f"{value / roof:.1f}", f"{goal:.1f}" if goal else ""])
    header = ["case", "[ms]", "roofline [ms]", "times the roofline", "goal [ms]"]
    facts = f"{figures['device']}, PyTorch {figures['torch']}: {figures['products_tflops']:.0f} TFLOP/s of bfloat16 "
    facts += f"products, {figures['copies_tb']:.2f} TB/s of copies; {usable_cores()} cores"
    data = f"Loader: {figures['loader']:.0f} batches/s, augmented {figures['loader augmented']:.0f} (goal {BATCHES}); "
    data += f"steps wait {figures['data_wait']:.1%} of their time for data (goal 5 %)."
    return f"{facts}\n\n{markdown_table(header, rows)}\n\n{data}"


def median_seconds(call: Callable[[], object]) -> float:
    """Median seconds of 20 calls, after five warm-up calls."""
    return median([seconds(call) for _ in range(25)][5:])


def seconds(call: Callable[[], object]) -> float:
    synchronize()
    start = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
