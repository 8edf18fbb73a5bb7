"""Measures peak memory and time of restoring images whole and in tiles, from 2 to 48 megapixels.

    python benchmarks/tiling.py            # the paper's 2-level network on this machine's CPU; prints Markdown tables
    python benchmarks/tiling.py --quick    # small sizes, for a first look

Each case runs in its own process, so that peaks are separate. Whole images that would not fit in memory are left out.
Rates compare processor time; on an idle machine with OMP_NUM_THREADS=1, this equals wall-clock time.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

MEGAPIXELS = (2, 6, 12, 24, 48)
QUICK = (0.5, 2)
MODEL = "kpac_2level"


def size_of(megapixels: float) -> tuple[int, int]:
    """Height and width of a 3:2 photograph; neither is a multiple of 4."""
    height = round((megapixels * 1e6 / 1.5) ** 0.5) // 4 * 4 + 2
    return height, round(height * 1.5) // 4 * 4 + 1


def restore_once(model: str, height: int, width: int, tile: int | None, approximate: bool) -> dict:
    """Restores one image of a case, after a tiny image as warm-up; returns time and memory."""
    import numpy as np
    import torch

    import kpac

    torch.manual_seed(0)
    restorer = kpac.Restorer(kpac.create_model(model), tile, device="cpu", approximate=approximate)
    restorer(np.zeros((64, 64, 3), np.float32))  # warm-up: libraries initialise
    image = np.random.default_rng(0).random((height, width, 3), dtype=np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu_start = time.perf_counter(), time.process_time()
    restorer(image)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    estimate = restorer.estimate_bytes(height, width, tile)
    return {"seconds": seconds, "cpu": cpu_seconds, "before": before * 1024, "peak": peak * 1024, "estimate": estimate}


def measure(model: str, height: int, width: int, tile: int | None, approximate: bool, timeout: int) -> dict | str:
    """Measures one case in its own process; returns the reason as text if it times out or is killed."""
    case = json.dumps([model, height, width, tile, approximate])
    try:
        run = subprocess.run(
            [sys.executable, __file__, "--case", case], capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {timeout} s"
    return (
        json.loads(run.stdout) if run.returncode == 0 else (run.stderr.splitlines() or [f"status {run.returncode}"])[-1]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--megapixels", type=float, nargs="*")
    parser.add_argument("--approximate", action="store_true", help="approximate tiles, too")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds a case")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(restore_once(*json.loads(options.case))))
        return

    import psutil
    import torch

    from kpac import create_model
    from kpac.restore.restorer import Restorer

    room = psutil.virtual_memory().available
    restorer = Restorer(create_model(options.model), device="cpu")
    print(f"{options.model}, width 48, float32; {os.cpu_count()} cores, {platform.machine()}, ", end="")
    print(f"{psutil.virtual_memory().total / 2**30:.0f} GB; PyTorch {torch.__version__}\n")
    print("| megapixels | pixels | pass | peak GB | estimated GB | seconds | CPU s | CPU s/megapixel | to whole |")
    print("|---:|---|---|---:|---:|---:|---:|---:|---:|")
    whole_rate = None
    for megapixels in options.megapixels or (QUICK if options.quick else MEGAPIXELS):
        height, width = size_of(megapixels)
        passes = [("whole", None, False), (f"tile {options.tile}", options.tile, False)]
        if options.approximate:
            passes.append((f"approximate, tile {options.tile}", options.tile, True))
        for label, tile, approximate in passes:
            row = f"| {megapixels:g} | {width}x{height} | {label} "
            if tile is None and restorer.estimate_bytes(height, width, None) > room:
                print(row + "| does not fit | | | | | |", flush=True)
                continue
            result = measure(options.model, height, width, tile, approximate, options.timeout)
            if isinstance(result, str):
                print(row + f"| {result} | | | | | |", flush=True)
                continue
            rate = result["cpu"] / (height * width / 1e6)
            if tile is None:
                whole_rate = rate  # rate of the largest size that fits
            estimated = (result["before"] + result["estimate"]) / 1e9
            ratio = f"{rate / whole_rate:.2f}" if whole_rate else ""
            print(row + f"| {result['peak'] / 1e9:.2f} | {estimated:.2f} | {result['seconds']:.0f} "
                  f"| {result['cpu']:.0f} | {rate:.2f} | {ratio} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
