"""Files of a run over a list: distances while it runs, tables at its end."""

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
"""Lines per row group of a Parquet table."""

_CHUNK = 1 << 16  # pairs
_LEAST_SECONDS = 1.0  # between two writes
_WRITING_SHARE = 20  # writing takes at most one part in so many of the time


class DistanceFile:
    """``distances.zarr``: float32 [distinct pairs], NaN where a distance is not yet known.

    Distances are collected in memory and written about once a second, chunk by chunk; each chunk is
    renamed into place. `close` writes the rest. A killed process loses what it computed since the
    last write. Opening an existing file continues it.

    Parameters
    ----------
    folder
        The run's folder.
    count
        Number of distinct pairs.
    attributes
        Attributes of the array; have to match those of an existing file.

    Raises
    ------
    LpipstoreError
        The existing file has another shape or other attributes, or is damaged.
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
        """Write the chunks that have changed since the last write."""
        start = time.monotonic()
        for chunk in sorted(self._dirty):
            part = slice(chunk * _CHUNK, (chunk + 1) * _CHUNK)
            self.array[part] = self.values[part]
        self._dirty.clear()
        now = time.monotonic()
        self._next_write = now + max(_LEAST_SECONDS, _WRITING_SHARE * (now - start))

    def close(self) -> None:
        """Write all distances that are not yet on disk."""
        self.flush()


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file atomically.

    The same lines give the same bytes, however the table is chunked in memory.
    """
    write_parts(path, iter([table]))


def write_parts(path: Path, parts: Iterator[pa.Table]) -> None:
    """Write one or more tables with the same columns as one file; see `write_table`.

    Only one part is in memory at a time. Parts of `LINES_AT_ONCE` lines give the same bytes as the
    whole table at once.
    """
    with replacing(path) as file, ExitStack() as stack:
        writer: pa.parquet.ParquetWriter | None = None
        for part in parts:
            if writer is None:
                writer = stack.enter_context(pa.parquet.ParquetWriter(file, part.schema))
            writer.write_table(part.combine_chunks(), row_group_size=LINES_AT_ONCE)
