"""Segments that are being written: local files, each locked by the process that writes it."""

import contextlib
import os
from pathlib import Path

from .disk import list_files, preallocate, sync_folder
from .footer import Contents, footer
from .lock import FileLock
from .segmentfiles import LocalFile, open_local
from .segments import write_all


class StagedFile(FileLock):
    """The file of a segment that this process is writing; its lock shows that we are alive."""

    def __init__(self, path: Path, fd: int) -> None:
        super().__init__(fd)
        self.path = path

    @property
    def size(self) -> int:
        """Length in bytes."""
        return os.fstat(self.fd).st_size

    def finish(self, contents: Contents, slots: int, *, durable: bool) -> None:
        """Truncate the file after its last row, and append the footer that makes it a shard."""
        os.ftruncate(self.fd, contents.end)
        ending = footer(contents, slots)
        write_all(self.fd, [ending], contents.end, len(ending))
        if durable:
            os.fsync(self.fd)


class Staging:
    """The folder of the segments that are being written, by this process or by others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Return the path of a segment's file."""
        return self.folder / name

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return list_files(self.folder)

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        return self.path(name).exists()

    def create(self, name: str, size: int) -> StagedFile:
        """Create the file of a new segment, locked, with room for `size` bytes.

        Raises
        ------
        OSError
            It exists already, or cannot be created.
        """
        path = self.path(name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        file = StagedFile(path, fd)
        try:
            file.acquire()
            preallocate(fd, size)
        except BaseException:
            file.close()
            self.remove(name)
            raise
        return file

    def open(self, name: str) -> LocalFile | None:
        """Open a file for reading; None if there is none."""
        return open_local(self.path(name))

    def claim(self, name: str) -> StagedFile | None:
        """Open and lock the file of a writer that is gone.

        Returns None if its writer is alive, or if it has been sealed meanwhile.
        """
        path = self.path(name)
        try:
            file = StagedFile(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except FileNotFoundError:
            return None
        try:
            file.acquire()
            if os.path.samestat(os.fstat(file.fd), path.stat()):
                return file
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            file.close()
            raise
        file.close()
        return None

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(name))

    def sync(self) -> None:
        """Wait until the names of the files are on the disk."""
        sync_folder(self.folder)
