"""Sealed segments as they are handed on: their rows by the index, their bytes verified."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .footer import Contents
from .pools import Pool, Segment
from .segmentfiles import SegmentFiles, read_bytes
from .segments import CRC_BYTES, checksum, seeds_of
from .state import State
from .writer import committed


@dataclass(frozen=True)
class SealedSegment:
    """One sealed segment of a store.

    Attributes
    ----------
    pool
        The pool of its rows.
    key
        Its key in the store.
    contents
        Records and sizes of its rows, by the index.
    current
        Which of its rows the store still has here: not dropped as corrupt. Shape (rows,).
    """

    pool: Pool
    key: str
    contents: Contents
    current: NDArray[np.bool_]
    files: SegmentFiles

    @property
    def keys(self) -> list[bytes]:
        """The key of each row, 16 bytes."""
        return self.contents.keys()

    def read(self) -> tuple[bytes, NDArray[np.bool_]] | None:
        """Read the segment, and verify each of its rows.

        Returns
        -------
        (bytes, ndarray of bool) or None
            All bytes of the segment, and which of its rows have their checksum; None if it was
            evicted meanwhile.

        Raises
        ------
        OSError
            The file cannot be read.
        """
        file = self.files.open(self.key)
        if file is None:
            return None
        size = file.size
        data = read_bytes(file, size, 0)
        if not size or len(data) < size:  # emptied by an eviction
            return None
        return bytes(data), self.current & sound_rows(data, self.contents)


def keys_of(records: NDArray[np.void]) -> list[bytes]:
    """Return the key of each record (dtype `lpipstore.cache.segments.RECORD`), 16 bytes."""
    halves = np.stack([records["hi"], records["lo"]], axis=1).astype("<u8").tobytes()
    return [halves[at : at + 16] for at in range(0, len(halves), 16)]


def sound_rows(data: Any, contents: Contents) -> NDArray[np.bool_]:  # noqa: ANN401 - a buffer
    """Return which rows of a segment's bytes have their checksum, shape (rows,)."""
    view = memoryview(data)
    halves = np.stack([contents.records["hi"], contents.records["lo"]], axis=1)
    rows = zip(
        contents.starts.tolist(),
        contents.sizes.tolist(),
        seeds_of(halves).tolist(),
        contents.records["check"].tolist(),
        strict=True,
    )
    return np.array(
        [
            checksum(view[start : start + size - CRC_BYTES], seed) == check
            for start, size, seed, check in rows
        ],
        bool,
    )


def sealed_segments(state: State, recipe: Mapping[str, str] | None) -> list[SealedSegment]:
    """Return the sealed segments of the pools whose recipe contains these items.

    The most recently used come first.
    """
    wanted = dict(recipe or {}).items()
    state.flush()  # the uses of this process count, too
    state.sync()
    found = []
    with state.index.reading() as connection:
        listed = connection.execute(
            "SELECT id FROM segments WHERE sealed AND rows > 0 ORDER BY used DESC, id DESC"
        ).fetchall()
        dropped: dict[int, list[int]] = {}
        for number, slot in connection.execute("SELECT segment, slot FROM dropped"):
            dropped.setdefault(number, []).append(slot)
        for (number,) in listed:
            segment: Segment | None = state.segments.get(number)
            if segment is None or not wanted <= segment.pool.recipe.items():
                continue
            contents = committed(connection, segment)
            current = np.ones(len(contents.records), bool)
            current[dropped.get(number, [])] = False
            found.append(SealedSegment(segment.pool, segment.key, contents, current, state.sealed))
    return found
