"""Makes the pages of results and runs, in a folder or behind a server."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from kpac.errors import UserError
from kpac.evaluation.results import FILE, UnusableResults, find_results, read_results
from kpac.reporting.comparison import ResultFiles
from kpac.reporting.outputs import KeptOutputs
from kpac.reporting.pages.gallery import Gallery
from kpac.reporting.pages.pictures import Pictures
from kpac.reporting.pages.results_page import ResultsPage
from kpac.reporting.pages.run_log import METRICS_FILE, find_runs
from kpac.reporting.pages.run_page import RunsPage
from kpac.reporting.pages.server import serve
from kpac.reporting.pages.site import prepare_folder

log = logging.getLogger(__name__)


class Pages:
    """The pages of some results and runs.

    Args:
        paths: results.json files, run folders, or folders that contain either.
        data: see `kpac.reporting.pages.gallery.Gallery`.
        restore, attention, device: see `kpac.reporting.pages.pictures.Pictures`.

    Raises:
        UserError: a path holds neither results nor a run; the results are not comparable, or have no images.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        data: Sequence[Path] = (),
        restore: bool = False,
        attention: bool = False,
        device: str = "auto",
    ):
        found, runs = find(paths, restore)
        self.runs = RunsPage(runs) if runs else None
        self.results = None
        if found:
            gallery = Gallery(found, data)
            self.results = ResultsPage(gallery, Pictures(gallery, restore, attention, device))

    def write(self, folder: Path, overwrite: bool = False, scenes: bool = True, refresh: float | None = None) -> None:
        """Writes the pages.

        Args:
            folder: where to write.
            overwrite: see `kpac.reporting.pages.site.prepare_folder`.
            scenes: also writes the images of all scenes. The index is written last: a folder without it is unfinished.
            refresh: interval in seconds at which the page of a run reloads its data.
        """
        prepare_folder(folder, overwrite)
        if self.results:
            if scenes:
                count = len(self.results.gallery.scenes)
                with tqdm(total=count, desc="writing", unit="scene", disable=None) as bar:
                    self.results.write_scenes(folder, bar.update)
            self.results.write_index(folder, has_runs=self.runs is not None)
        if self.runs:
            self.runs.write_data(folder, refresh)
            self.runs.write_page(folder, "run.html" if self.results else "index.html", self.results is not None)

    def refresh(self, folder: Path, seconds: float) -> None:
        """Rewrites the data of the runs every `seconds` until all runs are finished."""
        assert self.runs
        while not all(run.is_finished for run in self.runs.write_data(folder, seconds)):
            time.sleep(seconds)

    def serve(self, folder: Path, port: int, ready: Callable[[str], object]) -> None:
        """Serves the folder at a loopback address until Ctrl-C; renders scenes on demand."""

        def make_scene(number: int) -> None:
            if self.results:
                self.results.write_scene(folder, number)

        serve(folder, port, make_scene, ready)


def find(paths: Sequence[Path], restore: bool = False) -> tuple[ResultFiles, list[Path]]:
    """Finds the results and the runs in some paths.

    Results without kept outputs are skipped with a warning if they lie in the folder of a run, which can be shown
    without them.

    Raises:
        UserError: a path holds neither results nor a run.
    """
    found: dict[Path, dict] = {}
    runs: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; expected a {FILE}, a folder that contains some, or a run")
        its_runs = find_runs(path)
        its_results = _results_of_runs(path) if its_runs else find_results([path]) if _holds_results(path) else []
        if not its_runs and not its_results:
            raise UserError(
                f"{path}: holds neither a {FILE} nor a run with a {METRICS_FILE}; expected what kpac evaluate or "
                "kpac train writes"
            )
        for file, results in its_results:
            if its_runs and not restore and not KeptOutputs(file, results).by_stem:
                log.warning("%s", UserError(f"{file}: left out, its outputs were not kept", "restore"))
                continue
            found[file] = results
        runs.update(dict.fromkeys(its_runs))
    return list(found.items()), list(runs)


def _holds_results(path: Path) -> bool:
    return path.is_file() or next(path.rglob(FILE), None) is not None


def _results_of_runs(path: Path) -> ResultFiles:
    """The results in run folders. Those of an older kpac are skipped with a warning."""
    found = []
    for file in sorted(path.rglob(FILE)):
        try:
            found.append((file, read_results(file)))
        except UnusableResults as error:
            log.warning("left out: %s", error)
    return found


def default_folder(paths: Sequence[Path]) -> Path:
    """Default folder for pages: `view`, inside the path if it is a single folder, else in the working directory."""
    return paths[0] / "view" if len(paths) == 1 and paths[0].is_dir() else Path("view")
