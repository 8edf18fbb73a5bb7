"""The page of training runs: curves, and the images of the validations over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kpac.files import atomic_write
from kpac.reporting.pages.encoding import write_data
from kpac.reporting.pages.run_log import LoggedRun, read_run, validation_images
from kpac.reporting.pages.site import render
from kpac.reporting.units import METRICS


class RunsPage:
    """Writes the page of some runs; call `write_data` again to update it during a training.

    Args:
        folders: folders of the runs.
    """

    def __init__(self, folders: Sequence[Path]):
        self.folders = folders
        self._sizes: dict[Path, int] = {}  # sizes of event files, to read only those that have grown
        self._pictures: list[dict[str, dict[int, str]]] = [{} for _ in folders]  # run -> tag -> iteration -> file

    def write_page(self, folder: Path, name: str, has_results: bool = False) -> None:
        """Writes the page's HTML file, named `name`."""
        runs = ", ".join(path.resolve().name for path in self.folders)
        render(folder / name, "run.html", runs=runs, has_runs=True, has_results=has_results)

    def write_data(self, folder: Path, refresh: float | None = None) -> list[LoggedRun]:
        """Writes the numbers and images that the runs have logged so far; returns the runs.

        Args:
            folder: folder of the page.
            refresh: interval in seconds at which the page reloads its data; None for never.
        """
        runs = [read_run(path) for path in self.folders]
        entries = []
        for number, run in enumerate(runs):
            self._write_pictures(folder, number)
            entries.append(self._entry(number, run))
        titles = {name: {"title": metric.title, "digits": metric.digits} for name, metric in METRICS.items()}
        is_over = all(run.is_finished for run in runs)
        write_data(folder, "data/runs", {"runs": entries, "titles": titles, "refresh": None if is_over else refresh})
        return runs

    def _entry(self, number: int, run: LoggedRun) -> dict[str, Any]:
        pictures = [
            {"tag": tag, "steps": [[step, file] for step, file in sorted(steps.items())]}
            for tag, steps in self._pictures[number].items()
        ]
        facts = {"name": run.name, "done": run.done, "planned": run.planned}
        return {**facts, "columns": run.columns, "pictures": pictures}

    def _write_pictures(self, folder: Path, number: int) -> None:
        events = self.folders[number] / "tensorboard"
        size = sum(path.stat().st_size for path in events.glob("events.out.tfevents.*"))
        if self._sizes.get(events) == size:
            return
        self._sizes[events] = size
        known = self._pictures[number]
        for tag, step, content in validation_images(self.folders[number]):
            steps = known.setdefault(tag, {})
            file = f"pictures/{number}/{list(known).index(tag)}-{step}.png"  # tags may not be valid file names
            if step not in steps:
                with atomic_write(folder / file) as partial:
                    partial.write_bytes(content)
                steps[step] = file
