"""Training checkpoints: everything that a run needs to continue to the same bits.

The file is a `torch.save` archive, followed by a line with its SHA-256; `torch.load` alone reads it.
"""

import hashlib
import io
import logging
import os
import pickle
import re
import shlex
import zipfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from kpac.errors import UserError
from kpac.files import flush, whole_file

log = logging.getLogger(__name__)

FORMAT = 1  # of the state
SEAL = re.compile(rb"\nsha256 ([0-9a-f]{64})\n")
SEAL_BYTES = len("\nsha256 \n") + 64


class Checkpoints:
    """The training checkpoints of one run, `iteration_0005000.pt` in a folder: the last few, and the best one.

    Args:
        folder: made when needed.
        keep: number of the newest checkpoints that stay.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder = folder
        self.keep = keep

    def save(self, state: dict[str, Any], best: int | None = None) -> Path:
        """Writes a checkpoint, whole or not at all, then removes those that are neither new nor the best.

        Args:
            state: of tensors, numbers, strings and containers of these; "iteration" names the file.
            best: iteration of the checkpoint to keep besides the newest.

        Raises:
            UserError: the file cannot be written; the earlier checkpoints are as they were, and the message says so.
        """
        path = self._path(state["iteration"])
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **state}, buffer)
        content = buffer.getvalue()
        try:
            with whole_file(path) as partial, partial.open("wb") as file:
                file.write(content)
                file.write(b"\nsha256 %s\n" % hashlib.sha256(content).hexdigest().encode())
            _flush_folder(self.folder)
        except UserError as error:
            earlier = self.newest_path()
            if not earlier:
                raise
            again = resume_command(self.folder.parent)
            raise UserError(f"{error}; {earlier.name} before it is whole, make room and continue: {again}") from None
        for iteration in self._iterations()[: -self.keep]:
            if iteration != best:
                self._path(iteration).unlink(missing_ok=True)
        return path

    def newest(self) -> dict[str, Any]:
        """The state of the newest checkpoint that is whole; those that are not are named in a warning.

        Raises:
            UserError: there is no checkpoint, or none is whole.
        """
        problem = None
        for iteration in reversed(self._iterations()):
            if problem:
                log.warning("%s; taking %s instead", problem, self._path(iteration).name)
            try:
                return read_checkpoint(self._path(iteration))
            except UserError as error:
                problem = error
        if problem:
            raise UserError(f"{problem}, and no other checkpoint is left; start again with --overwrite")
        raise UserError(
            f"{self.folder}: holds no training checkpoint (iteration_*.pt); the run ended before its first one, "
            "start it again with --overwrite"
        )

    def newest_path(self) -> Path | None:
        """The file of the newest checkpoint, whole or not; None when there is none."""
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
    """The state in a checkpoint, its tensors on the CPU. Nothing in the file is executed.

    Raises:
        UserError: damaged, cut short, foreign, or of a later version.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    seal = SEAL.fullmatch(content[-SEAL_BYTES:])
    content = content[:-SEAL_BYTES]
    if not seal or hashlib.sha256(content).hexdigest().encode() != seal[1]:
        raise UserError(f"{path}: damaged or cut short (its checksum does not match)")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, zipfile.BadZipFile, EOFError):
        raise UserError(f"{path}: no training checkpoint of kpac; nothing in it was executed") from None
    if not isinstance(state, dict) or "format" not in state:
        raise UserError(f"{path}: no training checkpoint of kpac; nothing in it was executed")
    if state["format"] != FORMAT:
        raise UserError(f"{path}: has format {state['format']}, this version of kpac reads {FORMAT}; update kpac")
    return state


def resume_command(folder: Path) -> str:
    """The command that continues the run in a folder."""
    launcher = "torchrun ... scripts/train.py" if dist.is_torchelastic_launched() else "kpac train"
    return f"{launcher} --resume {shlex.quote(str(folder))}"


def _flush_folder(folder: Path) -> None:
    """Makes a renaming last through a power failure, where the system can flush folders."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        flush(descriptor, folder)
    finally:
        os.close(descriptor)
