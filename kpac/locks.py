"""Locks between processes, which the system gives back when their holder ends, however it ends."""

import errno
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EISDIR)


class Held(Exception):
    """Another process holds the lock."""


def take_lock(path: Path, wait: bool = False) -> BaseFileLock | None:
    """Takes the lock of a file, which is made when needed and stays.

    Args:
        path: in a folder that is there.
        wait: for the process that holds it.

    Returns:
        The lock, to be released; None on a file system without locks, as some clusters have.

    Raises:
        Held: another process has it, and `wait` is false.
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
