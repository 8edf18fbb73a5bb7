"""Downloads files once per machine."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from kpac.errors import UserError
from kpac.files import make_folder
from kpac.locks import take_lock

OFFLINE = "KPAC_OFFLINE"  # environment variable; any value but "" and "0" forbids downloads
TIMEOUT = 20  # seconds without an answer
log = logging.getLogger(__name__)


def download(url: str, path: Path, hash_prefix: str) -> None:
    """Downloads a file, unless it exists already; the write is atomic.

    Shows a progress bar on a terminal. If several processes ask for the same file, one downloads it and the others
    wait.

    Args:
        url: address of the file.
        path: where to save it.
        hash_prefix: the beginning of its SHA-256, in hexadecimal.

    Raises:
        UserError: there is no network, the content has another hash, or the folder cannot be written.
    """
    if path.is_file():
        return
    if os.environ.get(OFFLINE, "0") not in ("", "0"):
        raise UserError(f"{path}: no such file, and {OFFLINE} forbids downloading it from {url}")
    if str(path).startswith("~"):  # PyTorch leaves "~" in the path if there is no home folder
        raise UserError(f"{path}: there is no home folder to download {url} to; set TORCH_HOME or HOME")
    make_folder(path.parent, path)
    try:
        lock = take_lock(path.parent / f".{path.name}.lock", wait=True)
        try:
            if not path.is_file():
                log.warning("downloading %s to %s, once", url, path)
                with _timeout():
                    torch.hub.download_url_to_file(url, str(path), hash_prefix, progress=sys.stderr.isatty())
        finally:
            if lock:
                lock.release()
    except RuntimeError:  # the hash differs
        raise UserError(
            f"{url}: the download is incomplete or another file (expected SHA-256 {hash_prefix[:12]}...); try again"
        ) from None
    except OSError as error:  # includes URLError
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: cannot be downloaded ({reason}); save it by hand as {path}") from None


@contextmanager
def _timeout() -> Iterator[None]:
    earlier = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(earlier)
