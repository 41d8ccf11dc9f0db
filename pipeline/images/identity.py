"""Tell one version of a file from another, so that unchanged files are not read again."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ...cache.index import FileIdentity, FileRecord


class FileTable(Protocol):
    """A memory of what files hold, such as `lpipstore.FeatureStore` keeps."""

    def recall_files(self, files: "Sequence[FileIdentity]") -> "list[FileRecord | None]":
        """Return what is known of each file, or None."""

    def remember_files(self, entries: "Sequence[tuple[FileIdentity, FileRecord]]") -> None:
        """Keep what was found out about files."""


def identify(path: str | Path) -> "FileIdentity":
    """Return path, size, time and inode of a regular file.

    Raises
    ------
    OSError
        The file is not there, cannot be asked, or is no regular file (a pipe would never end).
    """
    from ...cache.index import FileIdentity

    seen = time.time_ns()
    status = os.stat(path)
    if not os.path.isfile(path):
        raise OSError(0, "not a regular file")
    absolute = os.fsencode(os.path.abspath(path))
    return FileIdentity(absolute, status.st_size, status.st_mtime_ns, status.st_ino, seen)
