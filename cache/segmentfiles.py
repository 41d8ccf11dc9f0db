"""Where sealed segments are kept: the contract, and the local folder that keeps it today.

A sealed segment is written once and then only read, under its chunk key: the pool's folder and the
name of the Zarr shard, such as ``alex-64-0123456789ab/c.3.0``. Segments that are still being
written are always local files; see `staging`.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .disk import list_files, list_folder, sync_folder
from .pools import parse_key

EVICTED = ".evicted"  # suffix of a segment's name once it is deleted, until it is forgotten

Buffers = Sequence[Any]  # NumPy's stubs call no array a buffer before Python 3.12


class SegmentFile(Protocol):
    """The bytes of one segment, for as long as they are needed.

    After the segment is deleted, reads may fail or come back short.
    """

    @property
    def size(self) -> int:
        """Length in bytes."""

    def read_at(self, buffers: Buffers, offset: int) -> int:
        """Fill writable buffers one after the other with the bytes from `offset` on.

        Returns how many bytes were read: fewer than asked for at the end of the segment. Raises
        `OSError` if they cannot be read. Threads may read at the same time.
        """


@dataclass(frozen=True)
class SegmentStat:
    """A sealed segment's length, the bytes that it occupies, and when it was last written."""

    size: int
    occupied: int
    modified_ns: int

    @property
    def whole(self) -> int:
        """The bytes that it occupies, at least its length; see `whole_bytes`."""
        return max(self.size, self.occupied)


@dataclass(frozen=True)
class SegmentListing:
    """Keys of the published segments, and of the deleted ones."""

    published: frozenset[str]
    deleted: frozenset[str]


class SegmentFiles(Protocol):
    """Keeps sealed segments under their chunk keys.

    Keys are as `pools.segment_key` makes them, and are never used again. Every method may raise
    `OSError`. All changes are made by the process that holds the write lock of the store's index;
    reading needs no lock.

    The index is committed apart from the segments, and a process may be killed in between. So a
    segment is published before the commit that says so, and deleted before it too; the key of a
    deleted segment stays known until `forget`, which tells an eviction from a loss.

    Attributes
    ----------
    place
        The folder or address of the segments, for messages: a segment is at ``{place}/{key}``.
    """

    @property
    def place(self) -> str:
        """The folder or address of the segments."""

    def open(self, key: str) -> SegmentFile | None:
        """Open a published segment for reading; None if there is none."""

    def stat(self, key: str) -> SegmentStat | None:
        """Return the sizes of a published segment; None if there is none."""

    def list(self) -> SegmentListing:
        """Return the keys of all segments."""

    def publish(self, staged: Path, key: str) -> None:
        """Make a staged file available under its key, whole or not at all.

        The file is moved or copied. The caller removes what is left of it after the commit. If
        durable, the segment survives a loss of power once this returns.
        """

    def take_back(self, key: str, staged: Path) -> None:
        """Undo `publish` after a commit that failed, or do nothing if it was not published.

        Afterwards the staged file is there as before, and nothing is published under the key.
        """

    def replace_ending(self, key: str, start: int, ending: bytes) -> None:
        """Replace a published segment's bytes from `start` to its end.

        If this raises, the bytes before `start` are still there.
        """

    def delete(self, key: str) -> None:
        """Free the bytes of a segment; if this raises, either all or nothing of it is gone."""

    def deleted(self, key: str) -> bool:
        """Return whether a segment has been deleted and not yet forgotten."""

    def forget(self, key: str) -> None:
        """Forget that a segment was deleted; do nothing if it was not."""


class LocalFile:
    """A local segment file, open for reading; closed when its last reader drops it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def size(self) -> int:
        """Length in bytes."""
        return os.fstat(self._fd).st_size

    def read_at(self, buffers: Buffers, offset: int) -> int:
        """Fill buffers from `offset` on; see `SegmentFile.read_at`."""
        return os.preadv(self._fd, buffers, offset)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)


def open_local(path: Path) -> LocalFile | None:
    """Open a local segment file; None if there is none."""
    try:
        return LocalFile(path)
    except FileNotFoundError:
        return None


class LocalSegments:
    """Keeps sealed segments in a local folder that zarr-python reads; see `SegmentFiles`.

    Publishing renames the staged file, which must be on the same file system. A deleted segment is
    renamed and emptied, so its bytes are free at once, even on a full disk.

    Parameters
    ----------
    root
        The folder that holds the pools' folders.
    durable
        Wait for the disk when a segment is published.
    """

    def __init__(self, root: Path, *, durable: bool) -> None:
        self.root = root
        self.durable = durable

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.root)

    def open(self, key: str) -> LocalFile | None:
        """Open a segment's file; None if there is none."""
        return open_local(self.root / key)

    def stat(self, key: str) -> SegmentStat | None:
        """Return the sizes of a segment's file; None if there is none."""
        try:
            stat = os.stat(self.root / key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return SegmentStat(stat.st_size, stat.st_blocks * 512, stat.st_mtime_ns)

    def list(self) -> SegmentListing:
        """List the pools' folders; other files are left out."""
        names = [
            f"{folder}/{name}"
            for folder in list_folder(self.root)
            for name in list_files(self.root / folder)
        ]
        deleted = [name.removesuffix(EVICTED) for name in names if name.endswith(EVICTED)]
        return SegmentListing(
            frozenset(filter(parse_key, names)), frozenset(filter(parse_key, deleted))
        )

    def publish(self, staged: Path, key: str) -> None:
        """Rename the staged file to its chunk key."""
        sealed = self.root / key
        os.rename(staged, sealed)
        if self.durable:
            sync_folder(sealed.parent)
            sync_folder(staged.parent)

    def take_back(self, key: str, staged: Path) -> None:
        """Rename the segment's file back."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.root / key, staged)

    def replace_ending(self, key: str, start: int, ending: bytes) -> None:
        """Replace the end of a segment's file in place."""
        with open(self.root / key, "r+b", buffering=0) as file:
            file.truncate(start)
            file.seek(start)
            rest = memoryview(ending)
            while rest:
                rest = rest[file.write(rest) :]

    def delete(self, key: str) -> None:
        """Rename the segment's file, and empty it."""
        path, left = self.root / key, self._left(key)
        try:
            with contextlib.suppress(FileNotFoundError):
                path.rename(left)
                os.truncate(left, 0)
        except BaseException:
            # if this fails too, the name tells a recovery what was meant, as after a kill
            with contextlib.suppress(OSError):
                if left.stat().st_size and not path.exists():
                    left.rename(path)
            raise

    def deleted(self, key: str) -> bool:
        """Return whether the file's name says so."""
        return self._left(key).exists()

    def forget(self, key: str) -> None:
        """Remove the emptied file."""
        self._left(key).unlink(missing_ok=True)

    def _left(self, key: str) -> Path:
        return self.root / (key + EVICTED)


def read_bytes(file: SegmentFile, size: int, offset: int) -> memoryview:
    """Return up to `size` bytes of a segment from `offset` on: fewer at its end."""
    buffer: Any = np.empty(size, np.uint8)
    return memoryview(buffer)[: file.read_at([buffer], offset)]
