"""The folder of a run: locking it, checking its earlier content, and resuming."""

import os
import platform
import shutil
from pathlib import Path
from typing import Any

from filelock import BaseFileLock
from typing_extensions import Self

from kpac.config import Config, dump_config, load_config
from kpac.distributed import launch_name
from kpac.errors import UserError
from kpac.files import write_text
from kpac.locks import Held, take_lock
from kpac.training.checkpoint import Checkpoints

LOCK, HOLDER = ".lock", ".lock.holder"
LAUNCH = ".launch"


class RunFolder:
    """The folder of one run, `runs/NAME`, locked for one process at a time; leaving the context releases the lock.

    Args:
        config: resolved configuration of the run.
        overwrite: replaces an earlier run.
        resume: continues an earlier run.
        allow_changes: continues it even if the configuration or the data changed.
    """

    def __init__(self, config: Config, overwrite: bool = False, resume: bool = False, allow_changes: bool = False):
        self.config = config
        self.path = config.folder
        self.overwrite = overwrite
        self.resume = resume
        self.allow_changes = allow_changes
        self.checkpoints = Checkpoints(self.path / "checkpoints", config.train.checkpoint.keep)
        self._lock: BaseFileLock | None = None
        self._holds = False  # also True on a file system without locks
        self._data: dict[str, Any] | None = None  # facts about the data, from the checkpoint

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._holds:
            (self.path / HOLDER).unlink(missing_ok=True)
        if self._lock:
            self._lock.release()

    def open(self) -> dict[str, Any] | None:
        """Checks whether the run can start or resume, without changing anything.

        Returns:
            The checkpoint's state to resume from; None to start from the beginning.

        Raises:
            UserError: the folder holds another run, is in use, or holds no run to resume; or the run to resume is
                finished, or has another configuration.
        """
        if self._is_of_this_launch():  # torchrun has restarted its processes
            self.resume = self.allow_changes = self.checkpoints.newest_path() is not None
            self.overwrite = not self.resume
        elif self.resume and not (self.path / "config.yaml").is_file():
            raise UserError(f"{self.path}: no run to continue; expected a folder with a config.yaml")
        if self.path.is_dir() and (self.resume or self.overwrite):
            self._hold()
        if not self.resume:
            self._check_free()
            return None
        self.checkpoints.remove_partial()
        state = self.checkpoints.newest()
        self._check_changes(state)
        self._data = state["data"]
        return state

    def prepare(self, data: dict[str, Any]) -> None:
        """Creates or empties the folder, unless the run is resumed, and writes the configuration.

        Args:
            data: facts about the data set, to compare with those in the checkpoint.

        Raises:
            UserError: the folder cannot be written, another process has taken it since `open`, or the data changed.
        """
        changes = differences(self._data, data) if self._data else []
        if changes and not self.allow_changes:
            raise UserError(
                f"{self.path}: the data differ from those of the run: {', '.join(changes)}", "resume_changed"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._hold()
            if not self.resume:
                self._check_free()
                for entry in self._entries():
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            if name := launch_name():
                (self.path / LAUNCH).write_text(name, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from None
        write_text(self.path / "config.yaml", dump_config(self.config))

    def _entries(self) -> list[Path]:
        return [entry for entry in self.path.iterdir() if entry.name not in (LOCK, HOLDER)]

    def _check_free(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: is a file; expected a folder or a new name")
        if not self.path.exists() or not self._entries():
            return
        if not self.overwrite:
            raise UserError(f"{self.path}: a run of this name exists", "run_exists", folder=self.path)
        if not (self.path / "config.yaml").is_file():
            raise UserError(f"{self.path}: only a run can be replaced, and this folder holds no config.yaml")

    def finish(self) -> None:
        """Marks the run as complete, so that no later launch resumes it automatically, even one of the same name."""
        (self.path / LAUNCH).unlink(missing_ok=True)

    def _is_of_this_launch(self) -> bool:
        try:
            return (self.path / LAUNCH).read_text(encoding="utf-8") == launch_name()
        except OSError:
            return False

    def _check_changes(self, state: dict[str, Any]) -> None:
        iterations, done = self.config.train.iterations, state["iteration"]
        if iterations < done:
            raise UserError(
                f"train.iterations: {iterations} is below the {done} that {self.path} has done; give {done} or more"
            )
        changes = differences(state["config"], self.config.model_dump(mode="json"))
        if changes and not self.allow_changes:
            raise UserError(
                f"{self.path}: the configuration differs from that of the run: {', '.join(changes)}",
                "resume_changed",
            )
        if any(change.startswith("model.") for change in changes):
            raise UserError(
                f"{self.path}: a run keeps its network ({', '.join(changes)}); start another run from its weights with "
                f"train.initial_weights={self.path}"
            )
        if iterations == done and not self._is_of_this_launch():
            raise UserError(
                f"{self.path}: the run is finished, {done} of {iterations} iterations",
                "more_iterations",
                folder=self.path,
                iterations=2 * done,
            )

    def _hold(self) -> None:
        """Locks the folder; the system releases the lock when this process ends, even if it is killed."""
        if self._holds:
            return
        holder = self.path / HOLDER
        try:
            self._lock = take_lock(self.path / LOCK)
            holder.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        except Held:
            by = holder.read_text(encoding="utf-8") if holder.is_file() else "another process"
            raise UserError(f"{self.path}: in use by {by}, which is training there; wait for it or end it") from None
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from None
        self._holds = True


def in_use(folder: Path) -> bool:
    """Whether a process is training in a run's folder now; False on a file system without locks."""
    if not (folder / LOCK).is_file():
        return False
    try:
        lock = take_lock(folder / LOCK)
    except Held:
        return True
    except OSError:  # a folder of another user
        return False
    if lock:
        lock.release()
    return False


def resumed_config(folder: Path, config: Path | None, overrides: list[str]) -> Config:
    """The configuration to continue a run with.

    Args:
        folder: the run's folder; it may have been moved.
        config: a YAML file; by default the run's own.
        overrides: dotted assignments; see `kpac.config.load_config`.

    Raises:
        UserError: no such run, or a mistake in the configuration.
    """
    own = folder / "config.yaml"
    if not own.is_file():
        raise UserError(f"{folder}: no run to continue; expected a folder with a config.yaml")
    loaded = load_config(config or own, overrides)
    resolved = folder.resolve()
    named = loaded.model_copy(update={"runs": folder.parent if folder.name == resolved.name else resolved.parent})
    return named.model_copy(update={"name": resolved.name})


def differences(old: dict[str, Any], new: dict[str, Any], under: str = "") -> list[str]:
    """Lists the differences of two configurations as "key old -> new"; the run's location is not compared."""
    found = []
    for key in [*old, *(key for key in new if key not in old)]:
        dotted = f"{under}{key}"
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{dotted}.")
        elif before != after and dotted not in ("name", "runs"):
            found.append(f"{dotted} {before} -> {after}")
    return found
