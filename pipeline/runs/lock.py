"""A lock on the folder of a run: one process writes at a time, and the lock ends with it."""

import os
from pathlib import Path

from ...cache.lock import FileLock

_PATIENCE = 1.0  # seconds: a killed process, or one that it had just forked, is gone by then


class RunLock(FileLock):
    """Hold an exclusive lock on the folder of a run until `close`, or until the process ends.

    Raises
    ------
    BlockingIOError
        Another process holds the lock.
    OSError
        The folder cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(os.open(folder, os.O_RDONLY))
        try:
            self.acquire(_PATIENCE)
        except BaseException:
            self.close()
            raise
