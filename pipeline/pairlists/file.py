"""What a run over a list leaves on disk: distances as they become known, and tables at the end."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from ..common.atomic import replacing
from ..runs.files import DISTANCES
from ..runs.zarr_array import chunk_is_whole, open_array

LINES_AT_ONCE = 1 << 20
"""Lines of a group of rows in a table."""

_CHUNK = 1 << 16  # pairs
_LEAST_SECONDS = 1.0  # between two writes; and writing takes at most a twentieth of the time
_WRITING_SHARE = 20


class DistanceFile:
    """``distances.zarr``: float32 [different pairs], NaN where a distance is not known yet.

    Distances are collected in memory and written every second or so, chunk by chunk, each renamed
    into place; `close` writes the rest. A killed process loses what it computed
    since it last wrote. Opening a file that exists goes on with it.

    Parameters
    ----------
    folder
        The run's folder.
    count
        Different pairs.
    attributes
        What the distances are of; has to be the same for a file that goes on.

    Raises
    ------
    LpipstoreError
        The file that exists is of other pairs, or is damaged.
    """

    def __init__(self, folder: Path, count: int, attributes: Mapping[str, Any]) -> None:
        path = folder / DISTANCES
        self.array = open_array(path, (count,), (_CHUNK,), attributes)
        self.values = np.full(count, np.nan, np.float32)
        self._dirty: set[int] = set()
        self._next_write = time.monotonic() + _LEAST_SECONDS
        for chunk in range(-(-count // _CHUNK)):
            if chunk_is_whole(path, self.array, chunk):
                part = slice(chunk * _CHUNK, (chunk + 1) * _CHUNK)
                self.values[part] = self.array[part]

    def put(self, pairs: NDArray[np.int64], distances: NDArray[np.float32]) -> None:
        """Set the distances of some pairs."""
        self.values[pairs] = distances
        self._dirty.update(np.unique(pairs // _CHUNK).tolist())
        if time.monotonic() >= self._next_write:
            self.flush()

    def flush(self) -> None:
        """Write what has become known."""
        start = time.monotonic()
        for chunk in sorted(self._dirty):
            part = slice(chunk * _CHUNK, (chunk + 1) * _CHUNK)
            self.array[part] = self.values[part]
        self._dirty.clear()
        now = time.monotonic()
        self._next_write = now + max(_LEAST_SECONDS, _WRITING_SHARE * (now - start))

    def close(self) -> None:
        """Write the rest."""
        self.flush()


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file so that it is there whole or not at all.

    The same lines give the same bytes, into whichever chunks reading or adding has cut them.
    """
    write_parts(path, iter([table]))


def write_parts(path: Path, parts: Iterator[pa.Table]) -> None:
    """Write tables with the same columns, one at least, as one: see `write_table`.

    One part is in memory at a time. Parts of `LINES_AT_ONCE` lines give the bytes of the whole.
    """
    with replacing(path) as file, ExitStack() as stack:
        writer: pa.parquet.ParquetWriter | None = None
        for part in parts:
            if writer is None:
                writer = stack.enter_context(pa.parquet.ParquetWriter(file, part.schema))
            writer.write_table(part.combine_chunks(), row_group_size=LINES_AT_ONCE)
