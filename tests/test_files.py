"""Files on disks that cannot do everything."""

import errno
import os
import stat
from pathlib import Path

import pytest

from kpac.data.cache import default_folder
from kpac.errors import UserError
from kpac.files import write_json
from kpac.locks import Held, take_lock
from kpac.training.checkpoint import Checkpoints


def refuse_fsync(monkeypatch, number: int, folders_alone: bool) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if not folders_alone or stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("folders_alone", [True, False])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_file_systems_without_fsync_are_named_once_and_used(tmp_path, monkeypatch, caplog, number, folders_alone):
    refuse_fsync(monkeypatch, number, folders_alone)
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
    for iteration in (1, 2):
        checkpoints.save({"iteration": iteration})
    assert checkpoints.newest()["iteration"] == 2
    notices = [record for record in caplog.records if "does not support fsync" in record.getMessage()]
    assert len(notices) == 1


def test_full_disk_is_no_file_system_without_fsync(tmp_path, monkeypatch):
    refuse_fsync(monkeypatch, errno.ENOSPC, folders_alone=False)
    with pytest.raises(UserError, match="No space left"):
        write_json(tmp_path / "x.json", {})


def test_read_only_data_without_a_home_folder_is_one_line(tmp_path, monkeypatch):
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(UserError, match=r"there is no home folder; set HOME, or data.cache"):
        default_folder(tmp_path)


def test_lock_is_held_by_one(tmp_path):
    lock = take_lock(tmp_path / ".lock")
    with pytest.raises(Held):
        take_lock(tmp_path / ".lock")
    lock.release()
    take_lock(tmp_path / ".lock").release()


def test_file_system_without_locks_gives_none(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert take_lock(tmp_path / ".lock") is None
