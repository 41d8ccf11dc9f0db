"""Tell versions of a file apart, so that unchanged files are not read again."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ...cache.index import FileIdentity, FileRecord


class FileTable(Protocol):
    """A table of what files contain, such as `lpipstore.FeatureStore` keeps."""

    def recall_files(self, files: "Sequence[FileIdentity]") -> "list[FileRecord | None]":
        """Return the record of each file, or None if it is unknown."""

    def remember_files(self, entries: "Sequence[tuple[FileIdentity, FileRecord]]") -> None:
        """Save the records of files."""


def identify(path: str | Path) -> "FileIdentity":
    """Return path, size, modification time and inode of a regular file.

    Raises
    ------
    OSError
        The file does not exist, cannot be accessed, or is not regular (reading a pipe would never
        end).
    """
    from ...cache.index import FileIdentity

    seen = time.time_ns()
    status = os.stat(path)
    if not os.path.isfile(path):
        raise OSError(0, "not a regular file")
    absolute = os.fsencode(os.path.abspath(path))
    return FileIdentity(absolute, status.st_size, status.st_mtime_ns, status.st_ino, seen)
