"""Journal of the finished images of an evaluation, so that it can resume after an interruption."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kpac
from kpac.data.layouts import SceneFiles
from kpac.evaluation.metrics import METRIC_NAMES
from kpac.files import NAMED, append_json_line, read_json_lines

FORMAT = 2  # version of a record; images with records of other versions are evaluated again


class Journal:
    """JSON Lines journal: one line per finished image, one file per rank.

    A truncated last line is ignored, and its image is evaluated again.

    Args:
        folder: holds the files, created when needed.
        rank: rank of this process.
    """

    def __init__(self, folder: Path, rank: int = 0):
        self.folder = folder
        self.path = folder / f"rank{rank}.jsonl"

    def finished(self) -> dict[str, dict[str, Any]]:
        """Fingerprint -> record, over all ranks."""
        found = {}
        for path in sorted(self.folder.glob("rank*.jsonl")):
            for entry in read_json_lines(path, object_hook=with_numbers):
                if "fingerprint" in entry and "record" in entry:
                    found[entry["fingerprint"]] = entry["record"]
        return found

    def add(self, fingerprint: str, record: dict[str, Any]) -> None:
        """Appends a finished image."""
        append_json_line(self.path, {"fingerprint": fingerprint, "record": record})


def with_numbers(entry: dict[str, Any]) -> dict[str, Any]:
    """Converts metrics stored as text back to numbers: `kpac.files.dump_json` writes infinity as text."""
    named = {key for key, value in entry.items() if key in METRIC_NAMES and isinstance(value, str) and value in NAMED}
    return {key: float(value) if key in named else value for key, value in entry.items()}


def remove_journals(folder: Path) -> None:
    """Deletes the journals of all ranks."""
    for path in folder.glob("rank*.jsonl"):
        path.unlink()


def fingerprint(scene: SceneFiles, method: Sequence[Any], protocol: dict[str, Any], metrics: Sequence[Any]) -> str:
    """Short hash of everything that a record depends on: method, protocol, metrics and the scene's files.

    Args:
        scene: names, sizes and modification times of its files are hashed, not their content.
        method: see `kpac.evaluation.methods.Method.identity`.
        protocol: settings of the protocol.
        metrics: names of the metrics, and versions and hashes of learned ones.
    """
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in scene.paths]
    parts = [
        kpac.__version__,
        FORMAT,
        scene.name,
        scene.group,
        list(scene.views),
        stats,
        list(method),
        protocol,
        list(metrics),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
