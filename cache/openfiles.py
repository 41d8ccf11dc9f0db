"""The segment files that a process has open for reading, and where rows lie in compressed ones."""

import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .errors import StoreError
from .index import Index
from .pools import Segment
from .segmentfiles import SegmentFile, SegmentFiles
from .staging import Staging

_MOST_FILES = 256

Extents = tuple[NDArray[np.int64], NDArray[np.int64]]  # offsets and sizes, in bytes


class OpenFiles:
    """Opens segments for reading, sealed or not, and keeps the last 256 of them open."""

    def __init__(self, sealed: SegmentFiles, staging: Staging, index: Index) -> None:
        self._sealed = sealed
        self._staging = staging
        self._index = index
        self._lock = threading.Lock()
        self._files: dict[int, SegmentFile] = {}
        self._extents: dict[int, Extents] = {}

    def get(self, segment: Segment) -> SegmentFile | None:
        """Open the file of a segment, or return None if it is gone.

        Raises
        ------
        StoreError
            It is there and cannot be opened.
        """
        with self._lock:
            file = self._files.get(segment.id)
            if file is None:
                file = self._open(segment)
                if file is not None:
                    while len(self._files) >= _MOST_FILES:
                        del self._files[next(iter(self._files))]
                    self._files[segment.id] = file
            return file

    def _open(self, segment: Segment) -> SegmentFile | None:
        try:
            return (
                self._sealed.open(segment.key)
                or self._staging.open(segment.open_name)
                or self._sealed.open(segment.key)  # it may have been sealed in between
            )
        except OSError as error:
            where = f"{self._sealed.place}/{segment.key}"
            raise StoreError(f"{where} cannot be read: {error.strerror}") from error

    def extents(self, segment: Segment, slot: int) -> Extents:
        """Return the offsets of a compressed segment's rows, and their sizes with crc32c, in bytes.

        Both cover the rows committed when they were read, including `slot` if it was committed.
        """
        known = self._extents.get(segment.id)
        if known is not None and slot < len(known[1]):
            return known
        with self._index.reading() as connection:
            found = connection.execute(
                "SELECT sizes FROM entries WHERE segment = ? ORDER BY slot", (segment.id,)
            ).fetchall()
        sizes = np.frombuffer(b"".join(row[0] for row in found), np.int64)
        extents = (np.cumsum(sizes) - sizes, sizes)
        self._extents[segment.id] = extents
        return extents

    def grown(self, segment: Segment) -> None:
        """Forget where rows lie in a segment that has got more of them."""
        self._extents.pop(segment.id, None)

    def forget(self, segments: Iterable[int]) -> None:
        """Forget segments that are gone."""
        with self._lock:
            for segment in segments:
                self._files.pop(segment, None)
                self._extents.pop(segment, None)

    def clear(self) -> None:
        """Forget all files; each is closed when its last reader drops it."""
        with self._lock:
            self._files.clear()
