"""Compares the speed of our metrics with that of the libraries whose values they reproduce, on a 1680x1120 image.

    python benchmarks/metrics.py [THREADS]

Prints a Markdown table for the CPU and, if there is one, the CUDA device. Takes about a minute.
"""

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage
import torch
from skimage.metrics import mean_squared_error, structural_similarity

sys.path.insert(0, str(Path(__file__).parents[1]))

from kpac.evaluation.metrics import mae, psnr, ssim

HEIGHT, WIDTH, REPEATS = 1120, 1680, 7


def seconds(work: Callable[[], float]) -> tuple[float, float]:
    """Seconds of the fastest of some calls, after a warm-up call; and the value that they return."""
    times, value = [], work()
    for _ in range(REPEATS):
        start = time.perf_counter()
        value = work()
        times.append(time.perf_counter() - start)
    return min(times), float(value)


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(1, 3, HEIGHT, WIDTH, generator=generator)
    output = (target + 0.05 * torch.randn(target.shape, generator=generator)).clamp(0, 1)
    arrays = [image[0].permute(1, 2, 0).contiguous().numpy() for image in (output, target)]
    wide = [array.astype(np.float64) for array in arrays]

    def their_ssim(first: np.ndarray, second: np.ndarray) -> float:
        return structural_similarity(first, second, data_range=1, channel_axis=-1)

    rows = [
        ("SSIM", "scikit-image, float64", lambda: their_ssim(*wide)),
        ("SSIM", "scikit-image, float32, as the field's scripts call it", lambda: their_ssim(*arrays)),
    ]
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        images = (output.to(device), target.to(device))
        rows.append(("SSIM", f"ours, float64, {device}", lambda images=images: ssim(*images).item()))
    rows.append(("MSE", "scikit-image, float64", lambda: mean_squared_error(*wide)))
    for name, metric in (("PSNR", psnr), ("MAE", mae)):
        for device in devices:
            images = (output.to(device), target.to(device))
            rows.append((name, f"ours, float64, {device}", lambda m=metric, i=images: m(*i).item()))
    cpu = f"{platform.machine()}, {torch.get_num_threads()} threads"
    gpu = f", {torch.cuda.get_device_name()}" if "cuda" in devices else ""
    print(f"\n{HEIGHT}x{WIDTH}, {cpu}{gpu}, PyTorch {torch.__version__}, scikit-image {skimage.__version__}\n")
    print("| metric | by | ms | value | times as fast as the first row |\n|---|---|---:|---:|---:|")
    first = None
    for metric, label, work in rows:
        duration, value = seconds(work)
        first = first or duration
        ratio = f"{first / duration:.1f}" if metric == "SSIM" else ""
        print(f"| {metric} | {label} | {duration * 1000:.0f} | {value:.8f} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
