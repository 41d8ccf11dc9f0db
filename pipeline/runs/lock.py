"""One process at a time writes a run: a lock on its folder, which ends with the process."""

import fcntl
import os
import time
import weakref
from pathlib import Path

_PATIENCE = 1.0  # seconds: a killed process, or one that it had just forked, is gone by then

_held: "weakref.WeakSet[RunLock]" = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Let go of the locks in a forked child, which must not outlive its parent's."""
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_leave_to_parent)


class RunLock:
    """Holds the folder of a run until `close`, or until the process ends however it does.

    Raises
    ------
    BlockingIOError
        Another process holds it.
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
        """Let go; a second time does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
