"""Measures the loss of quality by lower precision and by approximate tiles: scores of a model on a data set.

    python benchmarks/precision.py runs/quickstart data/quickstart    # prints a Markdown table

Scores are of the protocol dpdd-8bit; differences are between restored images in [0, 1], clamped, before rounding.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

import kpac
from kpac.data.dataset import SceneDataset
from kpac.data.layouts import find_scenes
from kpac.evaluation.metrics import psnr, ssim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--tile", type=int, default=256)
    options = parser.parse_args()
    model = kpac.load_model(options.model)
    scenes = SceneDataset(find_scenes(options.data, "test", model.views), 8)
    images = [
        ([view.permute(1, 2, 0).contiguous().numpy() for view in scene.views.split(3)], scene.target)
        for scene in (scenes[index] for index in range(len(scenes)))
    ]
    ways = {
        precision: kpac.Restorer(model, None, precision, options.device)
        for precision in ("float32", "bfloat16", "float16")
    }
    ways[f"float32, tile {options.tile}"] = kpac.Restorer(model, options.tile, "float32", options.device)
    approximate = kpac.Restorer(model, options.tile, "float32", options.device, approximate=True)
    ways[f"float32, tile {options.tile}, approximate"] = approximate
    print(f"{options.model} on {options.data}, {len(images)} test images, {ways['float32'].device}, PyTorch ", end="")
    print(f"{torch.__version__}\n\n| restored in | PSNR [dB] | SSIM | largest difference | mean difference | seconds |")
    print("|---|---:|---:|---:|---:|---:|")
    reference = None
    for label, restorer in ways.items():
        start = time.perf_counter()
        outputs = [torch.from_numpy(restorer(*views)).permute(2, 0, 1)[None] for views, _ in images]
        seconds = time.perf_counter() - start
        reference = reference or outputs
        pairs = list(zip(outputs, images, strict=True))
        scores = [
            sum(metric(output, target[None]).item() for output, (_, target) in pairs) / len(images)
            for metric in (psnr, ssim)
        ]
        differences = [(output - exact).abs() for output, exact in zip(outputs, reference, strict=True)]
        largest = max(difference.max().item() for difference in differences)
        mean = sum(difference.mean().item() for difference in differences) / len(images)
        print(f"| {label} | {scores[0]:.3f} | {scores[1]:.4f} | {largest:.1e} | {mean:.1e} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
