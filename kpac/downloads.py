"""Files that are downloaded once in a machine's life."""

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

OFFLINE = "KPAC_OFFLINE"  # an environment variable; anything but nothing and 0 forbids downloads
TIMEOUT = 20  # seconds without an answer
log = logging.getLogger(__name__)


def download(url: str, path: Path, hash_prefix: str) -> None:
    """Downloads a file unless it is there; with a progress bar on a terminal. It appears whole or not at all.

    Of several processes that ask, one downloads and the others wait.

    Args:
        url: of the file.
        path: where to put it.
        hash_prefix: the beginning of its SHA-256, in hexadecimal.

    Raises:
        UserError: no network, another content, or a folder that cannot be written.
    """
    if path.is_file():
        return
    if os.environ.get(OFFLINE, "0") not in ("", "0"):
        raise UserError(f"{path}: no such file, and {OFFLINE} forbids to download it from {url}")
    if str(path).startswith("~"):  # what PyTorch names where there is no home
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
    except RuntimeError:  # of another hash
        raise UserError(f"{url}: gave another file than expected (SHA-256 {hash_prefix}...); try again") from None
    except OSError as error:  # URLError among them
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: cannot be downloaded ({reason}); put it there by hand as {path}") from None


@contextmanager
def _timeout() -> Iterator[None]:
    earlier = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(earlier)
