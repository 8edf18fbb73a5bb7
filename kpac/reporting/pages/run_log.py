"""Reads the log of a training run: its numbers, and the images of its validations."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

METRICS_FILE = "metrics.jsonl"


def is_run(folder: Path) -> bool:
    """Whether a folder is the folder of a run."""
    return (folder / "config.yaml").is_file() and (folder / METRICS_FILE).is_file()


def find_runs(path: Path) -> list[Path]:
    """Finds runs: the folder itself if it is a run, otherwise the runs inside it."""
    if not path.is_dir():
        return []
    return [path] if is_run(path) else sorted(child for child in path.iterdir() if child.is_dir() and is_run(child))


@dataclass
class LoggedRun:
    """One run.

    Args:
        folder: `runs/NAME`.
        columns: name such as "train/loss" -> values, None for values that are not finite; "train", "val" -> iterations.
    """

    folder: Path
    columns: dict[str, list[float | None]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def planned(self) -> int | None:
        """Configured number of iterations; None if the configuration does not give it."""
        try:
            return int(yaml.safe_load((self.folder / "config.yaml").read_text(encoding="utf-8"))["train"]["iterations"])
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            return None

    @property
    def done(self) -> int:
        """The last iteration that was logged."""
        last = [*self.columns.get("train", [])[-1:], *self.columns.get("val", [])[-1:]]
        return int(max((number or 0 for number in last), default=0))

    @property
    def is_finished(self) -> bool:
        return self.planned is not None and self.done >= self.planned


def read_run(folder: Path) -> LoggedRun:
    """Reads the numbers of a run; ignores truncated lines, such as one that is being written."""
    run = LoggedRun(folder)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
    with (folder / METRICS_FILE).open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
                rows[entry["kind"]].append({"iteration": int(entry["iteration"]), **entry})
            except (ValueError, KeyError, TypeError):
                continue
    for kind, entries in rows.items():
        names = dict.fromkeys(name for entry in entries for name in entry if name not in ("kind", "iteration"))
        run.columns[kind] = [entry["iteration"] for entry in entries]
        for name in names:
            run.columns[f"{kind}/{name}"] = [entry.get(name) for entry in entries]
    return run


def validation_images(folder: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yields the images in a run's TensorBoard events: tag, iteration, content of a PNG file.

    Reads events one by one, since a long log may not fit in memory. If a run was resumed, the same tag and iteration
    may come twice.
    """
    from tensorboard.backend.event_processing import event_file_loader

    for path in sorted((folder / "tensorboard").glob("events.out.tfevents.*")):
        for event in event_file_loader.LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.HasField("image"):
                    yield value.tag, event.step, value.image.encoded_image_string
