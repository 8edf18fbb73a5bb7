"""Lists the photographs of a folder, and the files that cannot be read as photographs."""

import logging
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from kpac.errors import UserError
from kpac.images.kinds import HAS_HEIF, HEIF_EXTRA, HEIF_SUFFIXES, RAW_SUFFIXES, SUFFIXES, WHAT_TO_DO_WITH_RAW

log = logging.getLogger(__name__)

# Suffixes of files that often lie beside photographs: notes, lists, arrays, settings of other programs.
_BESIDE = (
    ".txt .md .rst .csv .tsv .json .jsonl .yaml .yml .toml .xml .xmp .pp3 .dop .html .htm .pdf .log .npy .npz .mat "
    ".pt .pth .safetensors .py .ipynb .sh .ini .db .zip .tar .gz .tgz .7z .rar .md5 .sha256 .aae .thm .lock .flist "
    ".part .partial .tmp .url .lnk .exe"
)
_NO_PHOTOGRAPHS = frozenset(_BESIDE.split())


def list_images(folder: str | Path) -> list[Path]:
    """The image files of a folder, sorted by name; none if the folder does not exist."""
    return [path for path in _files(Path(folder)) if path.suffix.lower() in SUFFIXES]


def left_out(folder: str | Path) -> dict[str, int]:
    """Counts the files of a folder that could be photographs but are not read: suffix -> count, largest first.

    Does not count hidden files, folders, and suffixes that no photograph has (.txt, .json, .xmp, ...).
    """
    suffixes = (path.suffix.lower() for path in _files(Path(folder)))
    known = {*SUFFIXES, *_NO_PHOTOGRAPHS}
    return dict(Counter(suffix for suffix in suffixes if suffix and suffix not in known).most_common())


def left_out_text(counts: Mapping[str, int], advice: bool = True) -> str:
    """Text such as "left out: 12 .heic, 3 .nef", and what to do about them; "" if there are none."""
    if not counts:
        return ""
    text = "left out: " + ", ".join(f"{count} {suffix}" for suffix, count in counts.items())
    what_to_do = []
    if not HAS_HEIF and counts.keys() & set(HEIF_SUFFIXES):
        what_to_do.append(HEIF_EXTRA)
    if counts.keys() & RAW_SUFFIXES:
        what_to_do.append(f"RAW: {WHAT_TO_DO_WITH_RAW}")
    return f"{text} ({'; '.join(what_to_do)})" if advice and what_to_do else text


@cache
def say_left_out(folder: Path) -> None:
    """Logs the files of a folder that are not read, once per folder and process."""
    if text := left_out_text(left_out(folder)):
        log.warning("%s: %s", folder, text)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        files = (path for path in folder.iterdir() if path.name[0] != ".")
        # Keeps broken links, so that they are reported. Leaves out pipes: reading one would wait forever.
        return sorted(path for path in files if path.is_file() or (path.is_symlink() and not path.exists()))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
