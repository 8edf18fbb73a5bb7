"""Makes and reads results.json: scores, and everything that is needed to reproduce them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kpac.environment import describe
from kpac.errors import UserError
from kpac.evaluation.journal import with_numbers
from kpac.evaluation.methods import Method
from kpac.evaluation.protocols import Protocol
from kpac.evaluation.request import Evaluation
from kpac.evaluation.scored import data_set_of, scored_images
from kpac.evaluation.scorer import Scorer
from kpac.evaluation.statistics import confidence, group_means, mean_scores
from kpac.models.cost import Cost
from kpac.precision import PRECISION

FORMAT = 1  # version of results.json
FILE = "results.json"
NEEDED = {  # keys that readers of the file use
    *("label", "protocol", "protocol_settings", "data", "split", "layout", "data_set", "model", "cost", "seconds"),
    *("scored", "device", "mean", "groups", "images"),
}


class UnusableResults(UserError):
    """A results.json of an older version or another program, or a damaged one; evaluating again replaces it."""


def make_results(
    method: Method,
    evaluation: Evaluation,
    scorer: Scorer,
    records: Sequence[dict[str, Any]],
    cost: Cost | None,
    device: str,
) -> dict[str, Any]:
    """Makes the content of results.json.

    Args:
        method, evaluation, scorer: what was evaluated, on what, and how.
        records: one record per scene, in the order of the split.
        cost: cost of the method for the first image.
        device: name of the device.
    """
    protocol = scorer.protocol
    seconds = sorted(record["seconds"] for record in records if "seconds" in record)
    memory = [record["memory_gb"] for record in records if "memory_gb" in record]
    counted = {name: value for name, value in cost.to_json().items() if name != "parts"} if cost else None
    return {
        "format": FORMAT,
        "label": method.label,
        "protocol": protocol.name,
        "bit_depth": protocol.bit_depth,
        "protocol_settings": protocol.settings(),
        "data": str(evaluation.data.resolve()),  # absolute, so valid from any working directory
        "split": evaluation.split,
        "layout": evaluation.layout,
        "pair_by_order": evaluation.pair_by_order,
        "data_set": data_set_of(records),
        "scored": scored_images(records),
        "model": method.describe(),
        "cost": counted,
        "seconds": seconds[len(seconds) // 2] if seconds else None,
        "memory_gb": max(memory) if memory else None,
        "device": device,
        "environment": describe(),
        "precision": PRECISION,
        "metrics": scorer.provenance,
        "skipped": scorer.skipped,
        "mean": mean_scores(records),
        "input_mean": mean_scores([record["input"] for record in records]),
        "groups": group_means(records, protocol.groups),
        "confidence": confidence(records),
        "images": list(records),
    }


def protocol_of(results: dict[str, Any]) -> Protocol:
    """The protocol of results; accepts files of earlier versions, which have fewer settings."""
    return Protocol(source="", **results["protocol_settings"])


def read_results(path: Path) -> dict[str, Any]:
    """Reads a results.json.

    Args:
        path: the file, or the folder that holds it.

    Raises:
        UnusableResults: the file is damaged, or of an older version.
        UserError: no such file, or a file of a newer version.
    """
    file = path / FILE if path.is_dir() else path
    try:
        results = json.loads(file.read_text(encoding="utf-8"), object_hook=with_numbers)
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; kpac evaluate writes it") from None
    except (OSError, ValueError):
        raise UnusableResults(f"{file}: not a whole JSON file; run kpac evaluate again") from None
    version = results.get("format") if isinstance(results, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise UserError(f"{file}: has format {version}, this version of kpac reads {FORMAT}; update kpac")
    if version != FORMAT:
        raise UnusableResults(f"{file}: written by an older kpac or another program; run kpac evaluate again")
    missing = sorted(NEEDED - results.keys())
    if missing:
        raise UnusableResults(f"{file}: has no '{missing[0]}'; expected a whole results.json; run kpac evaluate again")
    return results


def find_results(paths: Sequence[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """Finds and reads all results.json files under some paths.

    Raises:
        UserError: a path holds no results, or a file cannot be read.
    """
    found: dict[Path, dict[str, Any]] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; expected a {FILE}, or a folder that contains some")
        files = sorted(path.rglob(FILE)) if path.is_dir() else [path]
        if not files:
            raise UserError(f"{path}: holds no {FILE}; write one with kpac evaluate")
        found.update({file: read_results(file) for file in files})
    return list(found.items())
