"""Training checkpoints: everything that a run needs to resume bit-identically.

The file is a `torch.save` archive, followed by a line with its SHA-256. Plain `torch.load` reads it, too.
"""

import hashlib
import io
import logging
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from kpac.errors import UserError
from kpac.files import atomic_write, flush
from kpac.models.torch_files import SEAL, SEAL_BYTES, is_damaged

log = logging.getLogger(__name__)

FORMAT = 1  # version of the state dictionary


class Checkpoints:
    """The training checkpoints of one run, named like `iteration_0005000.pt`: the newest few, and the best one.

    Args:
        folder: holds the checkpoints; created when needed.
        keep: number of newest checkpoints to keep.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder = folder
        self.keep = keep

    def save(self, state: dict[str, Any], best: int | None = None) -> Path:
        """Writes a checkpoint atomically, then removes those that are neither among the newest nor the best.

        Args:
            state: tensors, numbers, strings and containers of these; its "iteration" names the file.
            best: iteration of the checkpoint to keep besides the newest.

        Raises:
            UserError: the file cannot be written. The earlier checkpoints are unchanged, and the message says so.
        """
        path = self._path(state["iteration"])
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **state}, buffer)
        content = buffer.getvalue()
        try:
            with atomic_write(path) as partial, partial.open("wb") as file:
                file.write(content)
                file.write(b"\nsha256 %s\n" % hashlib.sha256(content).hexdigest().encode())
            _flush_folder(self.folder)
        except UserError as error:
            earlier = self.newest_path()
            if not earlier:
                raise
            raise UserError(
                f"{error}; the earlier {earlier.name} is intact", "make_room", folder=self.folder.parent
            ) from None
        for iteration in self._iterations()[: -self.keep]:
            if iteration != best:
                self._path(iteration).unlink(missing_ok=True)
        return path

    def newest(self) -> dict[str, Any]:
        """State of the newest intact checkpoint; a warning names newer ones that are damaged.

        Raises:
            UserError: there is no checkpoint, or all are damaged.
        """
        problem = None
        for iteration in reversed(self._iterations()):
            if problem:
                log.warning("%s; using %s instead", problem, self._path(iteration).name)
            try:
                return read_checkpoint(self._path(iteration))
            except UserError as error:
                problem = error
        if problem:
            raise UserError(f"{problem}, and no other checkpoint is left", "start_again")
        raise UserError(
            f"{self.folder}: holds no training checkpoint (iteration_*.pt); the run ended before its first one",
            "start_again",
        )

    def newest_path(self) -> Path | None:
        """File of the newest checkpoint, intact or not; None when there is none."""
        iterations = self._iterations()
        return self._path(iterations[-1]) if iterations else None

    def remove_partial(self) -> None:
        """Removes partial files of killed processes. Call it only with the run's lock held."""
        for path in self.folder.glob(".*.partial*"):
            path.unlink(missing_ok=True)

    def _path(self, iteration: int) -> Path:
        return self.folder / f"iteration_{iteration:07d}.pt"

    def _iterations(self) -> list[int]:
        names = (re.fullmatch(r"iteration_(\d+)\.pt", path.name) for path in self.folder.glob("iteration_*.pt"))
        return sorted(int(name[1]) for name in names if name)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads the state from a checkpoint, with tensors on the CPU. No code in the file is executed.

    Raises:
        UserError: the file is damaged, truncated, not a checkpoint of kpac, or of a later version.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not SEAL.fullmatch(content[-SEAL_BYTES:]) or is_damaged(content):
        raise UserError(f"{path}: damaged or cut short (its checksum does not match)")
    try:
        state = torch.load(io.BytesIO(content[:-SEAL_BYTES]), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, zipfile.BadZipFile, EOFError):
        raise UserError(f"{path}: not a training checkpoint of kpac; nothing in it was executed") from None
    if not isinstance(state, dict) or "format" not in state:
        raise UserError(f"{path}: not a training checkpoint of kpac; nothing in it was executed")
    if state["format"] != FORMAT:
        raise UserError(f"{path}: has format {state['format']}, this version of kpac reads {FORMAT}; update kpac")
    return state


def _flush_folder(folder: Path) -> None:
    """Flushes a folder to disk, so that a rename survives a power failure; does nothing where this is not supported."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows cannot open folders
        return
    try:
        flush(descriptor, folder)
    finally:
        os.close(descriptor)
