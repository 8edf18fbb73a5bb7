"""Finished images of an evaluation, so that one that was interrupted goes on where it stopped."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kpac
from kpac.data.layouts import SceneFiles
from kpac.errors import UserError
from kpac.evaluation.metrics import METRICS
from kpac.files import NAMED, dump_json, make_folder

FORMAT = 2  # of a record; those of another one are made again


class Journal:
    """One JSON line an image, in a file for each process; what was written last may be cut off and is then redone.

    Args:
        folder: of the journal, made when needed.
        rank: of this process.
    """

    def __init__(self, folder: Path, rank: int = 0):
        self.folder = folder
        self.path = folder / f"rank{rank}.jsonl"

    def finished(self) -> dict[str, dict[str, Any]]:
        """Fingerprint -> record, of every process."""
        found = {}
        for path in sorted(self.folder.glob("rank*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line, object_hook=with_numbers)
                    found[entry["fingerprint"]] = entry["record"]
                except (ValueError, KeyError, TypeError):
                    continue
        return found

    def add(self, fingerprint: str, record: dict[str, Any]) -> None:
        """Appends a finished image."""
        line = dump_json({"fingerprint": fingerprint, "record": record}) + "\n"
        try:
            make_folder(self.folder)
            with self.path.open("a+b") as file:
                if file.tell():
                    file.seek(-1, 2)
                    line = line if file.read(1) == b"\n" else "\n" + line
                file.write(line.encode("utf-8"))
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from None


def with_numbers(entry: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with metrics as numbers where it has them as text, as `kpac.files.dump_json` writes infinity."""
    named = {key for key, value in entry.items() if key in METRICS and isinstance(value, str) and value in NAMED}
    return {key: float(value) if key in named else value for key, value in entry.items()}


def remove_journals(folder: Path) -> None:
    """Forgets all finished images."""
    for path in folder.glob("rank*.jsonl"):
        path.unlink()


def fingerprint(scene: SceneFiles, method: Sequence[Any], protocol: dict[str, Any], metrics: Sequence[Any]) -> str:
    """What a record depends on, in a few characters: the method, the protocol, the metrics, the scene's files.

    Args:
        scene: its files' names, sizes and times of change count, not what they hold.
        method: see `kpac.evaluation.methods.Method.identity`.
        protocol: its settings.
        metrics: their names, and the versions and hashes of learned ones.
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
