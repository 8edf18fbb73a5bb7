"""Chooses output folders of evaluations, and protects results of other evaluations in them."""

import logging
from pathlib import Path
from typing import Any

from kpac.errors import UserError
from kpac.evaluation.journal import remove_journals
from kpac.evaluation.methods import Method
from kpac.evaluation.protocols import find_protocol
from kpac.evaluation.request import Evaluation
from kpac.evaluation.results import FILE, UnusableResults, protocol_of, read_results
from kpac.files import short_path

RECORDS, IMAGES = "records", "images"  # folders beside results.json
log = logging.getLogger(__name__)


class ResultFolders:
    """Chooses output folders; refuses one that holds other results, or that was chosen before.

    Results of the same weights file may be replaced, even if training has changed the file since. A copy of a file
    counts as the same model.

    Args:
        output: folder given by the user; None for each method's default folder.
        several: gives each evaluation a folder inside `output`.
        overwrite: also accepts folders with results of another model, protocol or data set.
    """

    def __init__(self, output: Path | None = None, several: bool = False, overwrite: bool = False):
        self.output, self.several, self.overwrite = output, several, overwrite
        self._taken: dict[Path, str] = {}

    def take(self, method: Method, evaluation: Evaluation, folder: Path | None = None) -> Path:
        """Chooses the folder for an evaluation; writes nothing.

        Args:
            method, evaluation: what will be evaluated.
            folder: use this folder; by default chosen from the arguments of the class.

        Raises:
            UserError: the folder belongs to another evaluation, of this command or of an earlier one.
        """
        chosen = folder
        folder = chosen or self.output or default_folder(method, evaluation)
        if not chosen and self.output and self.several:
            folder /= f"{method.label}-{evaluation.data.resolve().name}"
        subject = _subject(method, evaluation)
        title, place = _title(subject), folder.resolve()
        if place in self._taken:
            raise UserError(f"{folder}: both {self._taken[place]} and {title} would be written there", "outputs_apart")
        self._taken[place] = title
        earlier = _earlier(folder)
        if earlier and not self.overwrite and not _is_same(earlier, subject):
            raise UserError(
                f"{folder / FILE}: holds the results of {_title(earlier)}, not of {title}", "results_folder"
            )
        return folder


def default_folder(method: Method, evaluation: Evaluation) -> Path:
    """Default folder of results: `results/DATA-SPLIT-PROTOCOL` in the run's folder, else below the method's name."""
    name = f"{evaluation.data.resolve().name}-{evaluation.split}-{find_protocol(evaluation.protocol).name}"
    return (method.home / "results" if method.home else Path("results") / method.label) / name


def clear_replaced(method: Method, evaluation: Evaluation, folder: Path) -> None:
    """Removes earlier results of other weights, another protocol or other data, and their images.

    Otherwise the new evaluation would reuse the old images. Results of the same evaluation are kept and reused.
    """
    earlier, subject = _earlier(folder), _subject(method, evaluation)
    if not earlier or (_is_same(earlier, subject) and earlier["model"].get("sha256") == subject["model"].get("sha256")):
        return
    log.warning("%s: replaces the results of %s", folder, _title(earlier))
    try:
        (folder / FILE).unlink()
        remove_journals(folder / RECORDS)
        for record in earlier["images"]:
            (folder / IMAGES / f"{record['name']}.png").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None


def _subject(method: Method, evaluation: Evaluation) -> dict[str, Any]:
    """The entries of results.json that identify model, data and protocol."""
    protocol = find_protocol(evaluation.protocol)
    return {
        "label": method.label,
        "model": method.describe(),
        "data": str(evaluation.data.resolve()),
        "split": evaluation.split,
        "protocol": protocol.name,
        "protocol_settings": protocol.settings(),
    }


def _earlier(folder: Path) -> dict[str, Any] | None:
    """The results in a folder; None if there are none that this version of kpac can read."""
    try:
        return read_results(folder) if (folder / FILE).is_file() else None
    except UnusableResults:
        return None


def _is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two results are of the same model, data and protocol."""
    files = [Path(item["model"].get("weights") or item["model"]["images"]).resolve() for item in (one, other)]
    hashes = [item["model"].get("sha256") for item in (one, other)]
    same_method = files[0] == files[1] or (hashes[0] is not None and hashes[0] == hashes[1])
    data = [(Path(item["data"]).resolve(), item["split"]) for item in (one, other)]
    return same_method and data[0] == data[1] and protocol_of(one).settings() == protocol_of(other).settings()


def _title(results: dict[str, Any]) -> str:
    source = results["model"].get("weights") or results["model"]["images"]
    data = short_path(results["data"])
    return f"{short_path(source)} on {data}, {results['split']} split, under {results['protocol']}"
