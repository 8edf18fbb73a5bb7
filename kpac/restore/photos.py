"""Photographs on disk -> restored photographs in a folder."""

import glob
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from kpac.errors import UserError
from kpac.files import make_folder
from kpac.images import SUFFIXES, read_photograph
from kpac.restore.restorer import Restorer


@dataclass(frozen=True)
class Job:
    """One photograph to restore: the files of its views, by name, and the file to write."""

    views: dict[str, Path]
    target: Path


def plan(
    photos: Sequence[str],
    output: Path,
    left: Path | None = None,
    right: Path | None = None,
    overwrite: bool = False,
) -> list[Job]:
    """What to read and where to write; nothing is restored before all of it is clear.

    Args:
        photos: files, folders, whose images are taken, or patterns such as "trip/**/*.jpg".
        output: the folder for the results, made when needed; each keeps its file's name.
        left, right: the dual-pixel views: files for a single photograph, or folders with files of the same names.
        overwrite: replaces results of an earlier call.

    Raises:
        UserError: nothing found, two photographs of one name, a result that exists, a folder that cannot be written.
    """
    centers = [path for name in photos for path in _find(name)]
    jobs: dict[str, Job] = {}
    for center in centers:
        if center.name in jobs:
            other = jobs[center.name].views["center"]
            if center.samefile(other):
                continue
            raise UserError(f"{center} and {other}: both would become {output / center.name}; restore them separately")
        views = {"center": center}
        for name, place in (("left", left), ("right", right)):
            if place is not None:
                views[name] = other_view(center, place, len(centers))
        jobs[center.name] = Job(views, output / center.name)
    for job in jobs.values():
        if job.target.exists() and any(job.target.samefile(path) for path in job.views.values()):
            raise UserError(f"{job.target}: is the photograph itself; name another folder")
    there = [job.target for job in jobs.values() if job.target.exists()]
    if there and not overwrite:
        more = f" (and {len(there) - 1} more)" if there[1:] else ""
        raise UserError(f"{there[0]}: exists already{more}; --overwrite replaces it")
    make_folder(output)
    try:
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror})") from None
    return list(jobs.values())


def restore_photos(restorer: Restorer, jobs: Sequence[Job], quality: int = 95) -> int:
    """Restores one photograph after the other; a file that fails is named on stderr, and the rest goes on.

    Args:
        restorer: for as many views as the jobs have.
        jobs: see `plan`.
        quality: of JPEG and WebP, 1 to 100.

    Returns:
        How many failed.
    """
    failed = 0
    with tqdm(jobs, desc="restoring", unit="photo", disable=None) as progress:
        for job in progress:
            try:
                _restore(restorer, job, quality)
            except UserError as error:
                failed += 1
                progress.write(f"kpac: {error}", file=sys.stderr)
    return failed


def _restore(restorer: Restorer, job: Job, quality: int) -> None:
    try:
        center = read_photograph(job.views["center"])
        others = {name: read_photograph(path).image for name, path in job.views.items() if name != "center"}
        try:
            restored = restorer(center.image, **others)
        except UserError as error:
            raise UserError(f"{job.views['center']}: {error}") from None
        center.with_image(restored).save(job.target, quality)
    except MemoryError:  # not the restorer's, which says what to try
        raise UserError(
            f"{job.views['center']}: out of memory for the photograph itself; end other programs, or cut it into parts"
        ) from None


def _find(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
        if not files:
            raise UserError(f"{path}: holds no image; expected {', '.join(SUFFIXES)}")
        return files
    if path.exists():
        return [path]
    matches = glob.glob(name, recursive=True)  # noqa: PTH207 (a pattern may be absolute)
    files = sorted(Path(match) for match in matches if Path(match).is_file())
    if not files:
        raise UserError(f"{name}: no such file" if not glob.has_magic(name) else f"{name}: matches no file")
    return files


def other_view(center: Path, place: Path, count: int) -> Path:
    """The file of a photograph's left or right view.

    Args:
        center: the photograph.
        place: the file, or a folder with a file of the same name.
        count: of photographs; a file is the view of a single one.

    Raises:
        UserError: no such file.
    """
    if place.is_dir():
        place = place / center.name
    elif count > 1:
        raise UserError(f"{place}: is no folder; expected one with {count} files named as the photographs")
    if not place.is_file():
        raise UserError(f"{place}: no such file; expected the other view of {center}")
    return place
