"""The folder of a page: its scripts and styles, its templates, and whether it may be written."""

import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import jinja2

from kpac import __version__
from kpac.errors import UserError
from kpac.files import atomic_write, make_folder

MARK = ".kpac-view"  # lies in a folder that this command made
MADE = ("index.html", "scene.html", "run.html", "assets", "data", "images", "thumbnails", "pictures")
_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("kpac.reporting.pages"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def prepare_folder(folder: Path, overwrite: bool = False) -> None:
    """Makes the folder of a page, empties it of an earlier page, and fills in scripts and styles.

    Args:
        folder: new, empty, or of an earlier page.
        overwrite: takes a folder that holds other files, too; they stay.

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
    """Writes a page from a template of this package; every value is text, and nothing in it becomes markup."""
    text = _templates.get_template(template).render(version=__version__, **values)
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
