"""A lock on the folder of a run: one process writes at a time, and the lock ends with it."""

import fcntl
import os
import time
import weakref
from pathlib import Path

_PATIENCE = 1.0  # seconds: a killed process, or one that it had just forked, is gone by then

_held: "weakref.WeakSet[RunLock]" = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Release the locks in a forked child, so that they do not outlive the parent's."""
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_leave_to_parent)


class RunLock:
    """Hold an exclusive lock on the folder of a run until `close`, or until the process ends.

    Raises
    ------
    BlockingIOError
        Another process holds the lock.
    OSError
        The folder cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._file: int | None = os.open(folder, os.O_RDONLY)
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    self.close()
                    raise
                time.sleep(0.02)
        _held.add(self)

    def close(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
