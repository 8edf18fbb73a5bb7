"""From weights and a data set to a folder of results: results.json, report.md, comparison.png."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from kpac.data.dataset import SceneDataset
from kpac.data.layouts import find_scenes
from kpac.environment import choose_device, describe, device_name
from kpac.evaluation import figures, tables
from kpac.evaluation.evaluator import Evaluated, evaluate, mean_scores
from kpac.evaluation.protocols import find_protocol
from kpac.files import whole_file, write_json
from kpac.models.cost import Cost, count_cost
from kpac.models.weights import load_model, read_header, weights_file

SHOWN = 2  # scenes in comparison.png


def evaluate_weights(
    weights: Path, data: Path, split: str, protocol_name: str, output: Path | None = None, device: str = "auto"
) -> tuple[dict[str, Any], Path]:
    """Evaluates a model on one split of a data set and writes everything that a reader needs to trust the numbers.

    Args:
        weights: a .safetensors file or the folder of a run.
        data: the data set's folder.
        split: "train", "val" or "test".
        protocol_name: see `kpac.evaluation.protocols`.
        output: folder for the results; by default `results/DATA-SPLIT-PROTOCOL` in the folder of the run, or in the
            working directory under the weights' name.
        device: see `kpac.environment.choose_device`.

    Returns:
        What results.json holds, and the folder. Nothing is written before every image is scored.

    Raises:
        UserError: the model, the data or the protocol cannot be used.
    """
    protocol = find_protocol(protocol_name)
    file = weights_file(weights)
    model = load_model(file)
    dataset = SceneDataset(find_scenes(data, split, model.views), protocol.bit_depth)
    if output is None:
        output = _results_folder(weights, data, split, protocol.name)
    where = choose_device(device)
    cost = _cost(model, *dataset[0].target.shape[-2:])
    model.to(where)

    shown_indices = set(np.linspace(0, len(dataset) - 1, min(SHOWN, len(dataset)), dtype=int).tolist())
    records, shown = [], []
    scenes = (dataset[index] for index in range(len(dataset)))
    progress = tqdm(evaluate(model, scenes, where), total=len(dataset), desc="evaluating", unit="image", disable=None)
    for index, evaluated in enumerate(progress):
        records.append(evaluated.record())
        if index in shown_indices:
            shown.append(evaluated)

    header = read_header(file)
    name = header["model"]["name"]
    results = {
        "protocol": protocol.name,
        "bit_depth": protocol.bit_depth,
        "data": str(data),
        "split": split,
        "model": {
            "name": name,
            "options": {key: value for key, value in header["model"].items() if key != "name"},
            "weights": str(file),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        },
        "device": device_name(where),
        "environment": describe(),
        "images": records,
        "mean": mean_scores(records),
        "input_mean": mean_scores([record["input"] for record in records]),
    }
    _write(output, results, protocol.summary(), shown, cost)
    return results, output


def _write(
    output: Path, results: dict[str, Any], protocol_summary: str, shown: list[Evaluated], cost: Cost | None
) -> None:
    caption = (
        f"{results['model']['name']}, {results['data']} {results['split']} split, protocol {results['protocol']}; "
        "enlarged: where blurred and sharp differ most"
    )
    figures.comparison(shown, output / "comparison.png", caption)
    with whole_file(output / "report.md") as partial:
        partial.write_text(tables.report(results, protocol_summary, cost), encoding="utf-8")
    write_json(output / "results.json", results)


def _cost(model: nn.Module, height: int, width: int) -> Cost | None:
    """The cost, or None for a network that cannot run without data."""
    try:
        return count_cost(model, height, width)
    except (RuntimeError, NotImplementedError):
        return None


def _results_folder(weights: Path, data: Path, split: str, protocol: str) -> Path:
    name = f"{data.resolve().name}-{split}-{protocol}"
    return weights / "results" / name if weights.is_dir() else Path("results") / weights.stem / name
