"""Locks between processes; the system releases them when the process ends, even if it is killed."""

import errno
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EISDIR)


class Held(Exception):
    """Another process holds the lock."""


def take_lock(path: Path, wait: bool = False) -> BaseFileLock | None:
    """Locks a file. Creates the file if it is missing, and never removes it.

    Args:
        path: the file, in an existing folder.
        wait: waits until the lock is free.

    Returns:
        The lock, which the caller releases; None if the file system has no locks, as on some clusters.

    Raises:
        Held: another process holds the lock, and `wait` is false.
        OSError: the file cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise Held from None
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise
        return None
    return lock
