"""The authors' graph, as numbers: inputs, weights and outputs of the cases in tests/data/cases.json."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

DATA = Path(__file__).parents[1] / "data"
CASES = {case["name"]: case for case in json.loads((DATA / "cases.json").read_text())["cases"]}
PARAMETER_ORDER = json.loads((DATA / "cases.json").read_text())["parameter_order"]


def draw(name: str) -> tuple[Tensor, list[tuple[str, np.ndarray]]]:
    """The inputs of a case as views in [-1, 1], (1, 3V, H, W), and its weights in the authors' order and layout."""
    case = CASES[name]
    generator = np.random.RandomState(case["seed"])
    size = (1, case["height"], case["width"], 3)
    inputs = [generator.uniform(-1, 1, size).astype("float32") for _ in case["inputs"]]
    weights = []
    for parameter, shape in PARAMETER_ORDER[name]:
        deviation = 1.2 / np.sqrt(np.prod(shape[:3])) if len(shape) == 4 else 0.1
        weights.append((parameter, generator.normal(0, deviation, shape).astype("float32")))
    return torch.from_numpy(np.concatenate(inputs, axis=-1)).permute(0, 3, 1, 2), weights


def fill(model: nn.Module, weights: list[tuple[str, np.ndarray]]) -> None:
    """Copies the authors' weights into a model whose parameters come in the same order."""
    parameters = list(model.parameters())
    assert len(parameters) == len(weights)
    for parameter, (name, values) in zip(parameters, weights, strict=True):
        # [height, width, in, out] -> (out, in, height, width); transposed convolutions swap in and out on both sides.
        tensor = torch.from_numpy(values)
        tensor = tensor.permute(3, 2, 0, 1) if tensor.dim() == 4 else tensor
        assert parameter.shape == tensor.shape, name
        parameter.data.copy_(tensor)


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Gives a model, which is returned, weights of the golden cases' size, so that every part shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.dim() == 4 else 100 / 1.44
        parameter.data.normal_(0, 1.2 / fan_in**0.5, generator=generator)
    return model.eval()


def output(name: str) -> Tensor:
    """What the authors' graph computed, (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.load(DATA / f"{name}.npz")["output"]).permute(0, 3, 1, 2)
