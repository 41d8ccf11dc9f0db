"""Locks on files and folders that end with the process that holds them."""

import fcntl
import os
import time
import weakref

from .errors import StoreBusy, StoreError, setting

PATIENCE_S = 120.0
_POLL_S = 5e-4

_locks: "weakref.WeakSet[FileLock]" = weakref.WeakSet()


class FileLock:
    """An exclusive lock (``flock``) on an open file or folder.

    The system releases it when the process ends, even if it is killed. A forked child holds none
    of its parent's locks: they are closed there, so that they do not outlive the parent.

    Parameters
    ----------
    fd
        The open file. The lock owns it from now on.

    Attributes
    ----------
    fd
        The open file; -1 once it is closed.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._held = False
        _locks.add(self)

    def acquire(self, patience: float = 0.0) -> None:
        """Take the lock, waiting up to `patience` seconds for it.

        Raises
        ------
        BlockingIOError
            Another process, or another lock of this one, held it during the whole wait.
        OSError
            The file system does not support locks.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._held = True
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_POLL_S)

    def release(self) -> None:
        """Release the lock, if it is held; the file stays open."""
        if self._held:  # not in a forked child
            self._held = False
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release the lock and close the file; a second call does nothing."""
        if self.fd < 0:
            return
        try:
            self.release()  # closing alone does not, while a child has the file open
        finally:
            self.leave()

    def leave(self) -> None:
        """Close the file without releasing the lock, which the parent of a fork may still hold."""
        fd, self.fd = self.fd, -1
        self._held = False
        os.close(fd)


def _leave_to_parent() -> None:
    """Close the locks' files in a forked child."""
    for lock in list(_locks):
        if lock.fd >= 0:
            lock.leave()


os.register_at_fork(after_in_child=_leave_to_parent)


def wait_for_lock(lock: FileLock, doing: str, patience: float | None = None) -> None:
    """Take a lock of the store; `doing` says in messages what the current holder is doing.

    Raises
    ------
    StoreBusy
        The lock was not free within `patience` seconds, two minutes by default.
    StoreError
        The file system does not support locks.
    """
    most = PATIENCE_S if patience is None else patience
    try:
        lock.acquire(most)
    except BlockingIOError as error:
        raise StoreBusy(
            f"another process has been {doing} for {most:.0f} s: wait until it is done, or end it"
        ) from error
    except OSError as error:
        raise StoreError(
            f"no lock can be had for {doing} ({error.strerror}): the store must be in a folder "
            f"whose file system has locks, such as a local disk ({setting('store')})"
        ) from error
