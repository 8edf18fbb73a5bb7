"""Restores photographs on disk into a folder, or one photograph into a file."""

import glob
import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from kpac.errors import UserError
from kpac.files import from_home, make_folder
from kpac.images import (
    SUFFIXES,
    can_write,
    is_of_a_photograph,
    left_out,
    left_out_text,
    list_images,
    read_photograph,
    say_left_out,
)
from kpac.restore.record import Recipe, Record
from kpac.restore.restorer import Restorer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One photograph to restore: the files of its views, by view, and the file to write."""

    views: dict[str, Path]
    target: Path


@dataclass(frozen=True)
class Plan:
    """Photographs to restore, and files to skip.

    Args:
        jobs: photographs to restore.
        skipped: existing results, which are kept.
        left_out: suffix -> number of unreadable files in the given folders.
        record: record of the folder of results; None if `output` was the name of a single file.
    """

    jobs: list[Job]
    skipped: list[Path] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    record: Record | None = None

    def summary(self, failed: int, note: str = "") -> str:
        """One line with the numbers of photographs that were restored, skipped, failed and left out.

        Args:
            failed: how many failed.
            note: advice about the skipped photographs, such as how to replace their results.
        """
        text = f"restored {len(self.jobs) - failed} of {len(self.jobs) + len(self.skipped)}"
        if self.skipped:
            text += f", skipped {len(self.skipped)} restored before{note and f' ({note})'}"
        if failed:
            text += f", {failed} failed"
        return "; ".join(filter(None, [text, left_out_text(self.left_out, advice=False)]))


def plan(
    photos: Sequence[str],
    output: Path,
    recipe: Recipe,
    left: Path | None = None,
    right: Path | None = None,
    overwrite: bool = False,
) -> Plan:
    """Plans which photographs to read and which files to write, and checks both before restoring.

    An interrupted call can be repeated to continue: results are skipped if the folder's record says that they were
    made from the same photographs, with the same weights and settings.

    Args:
        photos: image files, folders of images, or patterns such as "trip/**/*.jpg".
        output: folder for the results, created when needed; results keep the names of their photographs. For a single
            photograph it may be a file, recognised by its suffix.
        left, right: the dual-pixel views: files for a single photograph, or folders with files of the same names.
        overwrite: replaces results of an earlier call.

    Raises:
        UserError: nothing was found, two photographs have the same name, an existing file would be replaced by another
            result, or a folder cannot be written.
    """
    centers = [path for name in photos for path in _find(name)]
    folder, name = _where_to_write(output, centers)
    jobs: dict[str, Job] = {}
    for center in centers:
        target = folder / (name or center.name)
        if target.name in jobs:
            other = jobs[target.name].views["center"]
            if center.samefile(other):
                continue
            raise UserError(f"{center} and {other}: both would become {target}; restore them separately")
        views = {"center": center}
        for view, place in (("left", left), ("right", right)):
            if place is not None:
                views[view] = other_view(center, place, len(centers))
        jobs[target.name] = Job(views, target)
    for job in jobs.values():
        if job.target.exists() and any(job.target.samefile(path) for path in job.views.values()):
            raise UserError(f"{job.target}: cannot be written, because it is the photograph itself; name another place")
    there = [] if overwrite else [job for job in jobs.values() if job.target.exists()]
    record = None if name else Record(folder)
    _require_same(there, record, recipe)
    make_folder(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    skipped = [job.target for job in there]
    folders = {path for path in map(from_home, photos) if path.is_dir()}
    unread = sum((Counter(left_out(path)) for path in folders), Counter())
    left_to_do = [job for job in jobs.values() if job.target not in skipped]
    return Plan(left_to_do, skipped, dict(unread.most_common()), record)


def restore_photos(restorer: Restorer, planned: Plan, recipe: Recipe) -> int:
    """Restores photographs one by one; logs failures and continues.

    Args:
        restorer: restorer for the views of the jobs.
        planned: from `plan`.
        recipe: describes the restorer, and gives the quality of lossy formats.

    Returns:
        The number of photographs that failed.
    """
    failed = 0
    progress = tqdm(planned.jobs, desc="restoring", unit="photo", disable=None)
    for job in progress:
        try:
            _restore(restorer, job, recipe.quality)
            if planned.record:
                planned.record.add(job.views, job.target, recipe)
        except Exception as error:  # an error in one photograph must not stop the others
            failed += 1
            progress.clear()  # the message is printed on its line
            if isinstance(error, UserError):
                log.error("%s", error)
            else:
                reason = " ".join(str(error).split())[:200]
                log.error("%s: %s: %s", job.views["center"], type(error).__name__, reason)
    return failed


def _restore(restorer: Restorer, job: Job, quality: int) -> None:
    try:
        center = read_photograph(job.views["center"])
        others = {name: read_photograph(path).image for name, path in job.views.items() if name != "center"}
        try:
            restored = restorer(center.image, **others)
        except UserError as error:
            raise error.within(str(job.views["center"])) from None
        center.with_image(restored).save(job.target, quality)
    except MemoryError:  # raised while reading or writing; the restorer raises a UserError
        raise UserError(
            f"{job.views['center']}: out of memory; close other programs, or cut the photograph into parts"
        ) from None


def _where_to_write(output: Path, centers: Iterable[Path]) -> tuple[Path, str | None]:
    """Output folder, and the name of the file in it if `output` is a file."""
    one = len(set(centers)) == 1
    if output.is_dir() or not output.suffix:
        return output, None
    if can_write(output):
        if not one:
            raise UserError(f"{output}: names a single file for {len(set(centers))} photographs; name a folder")
        return output.parent, output.name
    if one and is_of_a_photograph(output.suffix):
        raise UserError(f"{output}: cannot write this format; use one of {', '.join(SUFFIXES)}, or name a folder")
    return output, None


def _require_same(jobs: Sequence[Job], record: Record | None, recipe: Recipe) -> None:
    """Raises a UserError if an existing file may differ from the job's result."""
    reasons = [(job.target, record.difference(job.views, job.target, recipe) if record else "") for job in jobs]
    in_the_way = [(target, reason) for target, reason in reasons if reason or not record]
    if in_the_way:
        target, reason = in_the_way[0]
        more = f"and {len(in_the_way) - 1} more" if in_the_way[1:] else ""
        details = "; ".join(filter(None, [reason, more]))
        place = "folder" if record else "file"
        raise UserError(f"{target}: exists already{details and f' ({details})'}", "replace", place=place)


def _find(name: str) -> list[Path]:
    path = from_home(name)
    if path.is_dir():
        files = list_images(path)
        if not files:
            unread = left_out_text(left_out(path))
            raise UserError(f"{path}: holds no image; expected {', '.join(SUFFIXES)}{unread and '; '}{unread}")
        say_left_out(path)
        return files
    if path.exists():
        return [path]
    matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 (a pattern may be absolute)
    files = sorted(Path(match) for match in matches if Path(match).is_file())
    if not files:
        raise UserError(f"{name}: no such file" if not glob.has_magic(name) else f"{name}: matches no file")
    return files


def other_view(center: Path, place: Path, count: int) -> Path:
    """Finds the file of a photograph's left or right view.

    Args:
        center: the photograph.
        place: the file of the view, or a folder with a file of the photograph's name.
        count: number of photographs; a file is only accepted for one.

    Raises:
        UserError: no such file.
    """
    if place.is_dir():
        place = place / center.name
    elif count > 1:
        raise UserError(f"{place}: not a folder; expected a folder with files of the {count} photographs' names")
    if not place.is_file():
        raise UserError(f"{place}: no such file; expected the other view of {center}")
    return place
