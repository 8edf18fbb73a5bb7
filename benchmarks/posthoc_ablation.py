"""Post-hoc ablation: scores of a trained network with one part of its KPAC blocks switched off, without retraining.

    python benchmarks/posthoc_ablation.py kpac_2level-synthetic data/synthetic    # prints a Markdown table

Scores are of the protocol dpdd-8bit. A network that was trained without the part could do better than these rows say.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor, nn

import kpac
from kpac.data.dataset import SceneDataset
from kpac.data.layouts import find_scenes
from kpac.evaluation.metrics import psnr, ssim
from kpac.models.kpac import KPACBlock
from kpac.reporting.tables import markdown_table

Change = tuple[nn.Module, Callable[[Tensor], Tensor]]
"""A module, and what replaces its output."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    model = kpac.load_model(options.model).to(options.device)
    scenes = SceneDataset(find_scenes(options.data, options.split, model.views), 8)
    reference = scores(model, scenes, ())
    rows = [["nothing", f"{reference[:, 0].mean():.2f}", f"{reference[:, 1].mean():.4f}", ""]]
    for name, changes in parts(model):
        change = scores(model, scenes, changes) - reference
        psnr_change, ssim_change = change.mean(0).tolist()
        rows.append([name, f"{psnr_change:+.2f}", f"{ssim_change:+.4f}", f"{int((change[:, 0] < 0).sum())}"])
    print(f"{options.model} on {options.data}, {len(scenes)} images of the {options.split} split\n")
    print(markdown_table(["switched off", "PSNR [dB]", "SSIM", "images that get worse"], rows))


def parts(model: nn.Module) -> list[tuple[str, list[Change]]]:
    """What can be switched off in a network: a name, and the outputs to replace."""
    blocks = [module for module in model.modules() if isinstance(module, KPACBlock)]
    scale = [block.scale_attention for block in blocks if block.scale_attention is not None]
    shape = [block.shape_attention for block in blocks if block.shape_attention is not None]
    found: list[tuple[str, list[Change]]] = [
        (f"branches of block {number}", [(attention, torch.zeros_like)])
        for number, attention in enumerate((block.scale_attention or block.shape_attention for block in blocks), 1)
        if attention is not None
    ]
    if scale:
        found.append(("scale attention: each branch's mean over the image", [(each, _mean_of_image) for each in scale]))
        for index, dilation in enumerate(blocks[0].dilations):
            found.append((f"dilation {dilation}", [(each, _without(index)) for each in scale]))
    if shape:
        found.append(("shape attention: the mean over the filters", [(each, _mean_of_filters) for each in shape]))
    return found


def scores(model: nn.Module, scenes: SceneDataset, changes: Iterable[Change]) -> Tensor:
    """PSNR and SSIM of each image, (images, 2), with some modules' outputs replaced."""
    device = next(model.parameters()).device
    with torch.inference_mode(), ExitStack() as hooks:
        for module, change in changes:
            hooks.enter_context(module.register_forward_hook(lambda *call, change=change: change(call[-1])))
        found = []
        for scene in map(scenes.__getitem__, range(len(scenes))):
            output = model(scene.views[None].to(device)).clamp(0, 1).cpu()
            found.append([metric(output, scene.target[None]).item() for metric in (psnr, ssim)])
    return torch.tensor(found, dtype=torch.float64)


def _mean_of_image(weights: Tensor) -> Tensor:
    return weights.mean(dim=(2, 3), keepdim=True).expand_as(weights)


def _mean_of_filters(weights: Tensor) -> Tensor:
    return weights.mean(dim=1, keepdim=True).expand_as(weights)


def _without(branch: int) -> Callable[[Tensor], Tensor]:
    def remove(weights: Tensor) -> Tensor:
        weights = weights.clone()
        weights[:, branch] = 0
        return weights

    return remove


if __name__ == "__main__":
    main()
