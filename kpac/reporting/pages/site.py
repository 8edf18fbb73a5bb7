"""Prepares the folder of pages, and renders their templates."""

import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import jinja2

from kpac import __version__
from kpac.errors import UserError
from kpac.files import make_folder, write_text

MARK = ".kpac-view"  # file that marks folders made by `kpac view`
MADE = ("index.html", "scene.html", "run.html", "assets", "data", "images", "thumbnails", "pictures")
_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("kpac.reporting.pages"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def prepare_folder(folder: Path, overwrite: bool = False) -> None:
    """Creates the folder of a page, removes an earlier page from it, and copies scripts and styles into it.

    Args:
        folder: a new or empty folder, or the folder of an earlier page.
        overwrite: also accepts a folder with other files, and keeps these.

    Raises:
        UserError: the folder holds other files, or cannot be written.
    """
    make_folder(folder)
    there = [path.name for path in folder.iterdir()]
    if there and MARK not in there and not overwrite:
        raise UserError(f"{folder}: holds other files, such as {sorted(there)[0]}", "page_folder")
    try:
        for name in MADE:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        (folder / MARK).write_text(f"made by kpac view {__version__}\n", encoding="utf-8")
        with as_file(files("kpac.reporting.pages") / "static") as static:
            shutil.copytree(static, folder / "assets")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None


def render(path: Path, template: str, **values: Any) -> None:
    """Writes a page from a template of this package; values are escaped as text."""
    write_text(path, _templates.get_template(template).render(version=__version__, **values))
