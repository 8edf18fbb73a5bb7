"""From results and runs to a folder of pages."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from kpac.errors import UserError
from kpac.evaluation.results import FILE, UnusableResults, find_results, read_results
from kpac.reporting.comparison import ResultFiles
from kpac.reporting.pages.gallery import Gallery
from kpac.reporting.pages.outputs import KeptOutputs
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
        paths: results.json files, folders that hold some, folders of runs, or folders that hold some.
        data: see `kpac.reporting.pages.gallery.Gallery`.
        restore, attention, device: see `kpac.reporting.pages.pictures.Pictures`.

    Raises:
        UserError: a path holds neither results nor a run, results that do not compare, or results without images.
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
            folder: for them.
            overwrite: see `kpac.reporting.pages.site.prepare_folder`.
            scenes: writes the images of all scenes, too; the index comes last, so that a folder without one is known
                to be unfinished.
            refresh: seconds after which the page of a run reads its data again.
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
        """Writes the data of the runs again and again, until all of them are finished."""
        assert self.runs
        while not all(run.is_finished for run in self.runs.write_data(folder, seconds)):
            time.sleep(seconds)

    def serve(self, folder: Path, port: int, ready: Callable[[str], object]) -> None:
        """Serves the folder at a loopback address until Ctrl-C; scenes are made when they are looked at."""

        def make_scene(number: int) -> None:
            if self.results:
                self.results.write_scene(folder, number)

        serve(folder, port, make_scene, ready)


def find(paths: Sequence[Path], restore: bool = False) -> tuple[ResultFiles, list[Path]]:
    """The results and the runs that some paths hold.

    Results in the folder of a run whose outputs were not kept are left out with a notice, since the run can be shown
    without them.

    Raises:
        UserError: a path holds neither.
    """
    found: dict[Path, dict] = {}
    runs: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; expected a {FILE}, a folder that holds some, or a run")
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
    """The results in the folders of runs, but those of an older kpac, which are told in a notice."""
    found = []
    for file in sorted(path.rglob(FILE)):
        try:
            found.append((file, read_results(file)))
        except UnusableResults as error:
            log.warning("left out: %s", error)
    return found


def default_folder(paths: Sequence[Path]) -> Path:
    """Where pages go: the folder `view` in the results or the run that they show, or of several in the current one."""
    return paths[0] / "view" if len(paths) == 1 and paths[0].is_dir() else Path("view")
