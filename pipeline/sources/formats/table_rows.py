"""Read one column of a Parquet or Arrow file by row number, a piece at a time."""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from ..source import ImageError

_PIECE_BYTES = 32_000_000  # of a row group are read at once
_MOST_ROWS = 1024
_BUFFER = 1 << 20  # bytes; without one, a whole column of a row group is read at once
_KEPT = 2  # pieces
_ARROW_MAGIC = b"ARROW1\0\0"  # begins a file that ends in a footer; the same stream lies behind it


class TableRows:
    """The cells of a column. Threads may share it.

    Reading in order is one pass; at most `_KEPT` pieces are in memory.

    Parameters
    ----------
    starts
        The first row of each group of rows, and the number of rows at the end.
    pieces
        Yields the cells of a group, in order; may raise `pyarrow.ArrowException` or OSError.
    ending
        Why the file has no more rows, if it is damaged.
    unfilled
        Whether cells may lack bytes, and name a file instead.
    random
        Whether any row is read as quickly as the next.
    """

    def __init__(
        self,
        starts: list[int],
        pieces: Callable[[int], Iterator[pa.Array]],
        *,
        ending: str | None = None,
        unfilled: bool = False,
        random: bool = False,
    ) -> None:
        self.ending = ending
        self.unfilled = unfilled
        self.random = random
        self._starts = starts
        self._pieces = pieces
        self._lock = Lock()
        self._recent: deque[tuple[int, pa.Array]] = deque(maxlen=_KEPT)
        self._coming: Iterator[pa.Array] = iter(())
        self._group, self._next = -1, 0  # of `_coming`, and the row that it begins with
        self._broken: dict[int, tuple[int, str]] = {}  # group → its first bad row and the reason

    def __len__(self) -> int:
        return self._starts[-1]

    def cell(self, row: int) -> pa.Scalar:
        """Return the cell of a row below the number of rows.

        Raises
        ------
        ImageError
            The part of the file that holds it is damaged.
        """
        with self._lock:
            for first, piece in self._recent:
                if first <= row < first + len(piece):
                    return piece[row - first]
            group = bisect_right(self._starts, row) - 1
            bad, reason = self._broken.get(group, (len(self), ""))
            if row >= bad:
                raise ImageError(reason)
            if group != self._group or row < self._next:
                self._coming = self._pieces(group)
                self._group, self._next = group, self._starts[group]
            return self._advance(group, row)

    def _advance(self, group: int, row: int) -> pa.Scalar:
        """Read on until the piece that holds a row."""
        while True:
            first = self._next
            try:
                piece = next(self._coming, None)
                if piece is None:
                    raise pa.ArrowInvalid("it has fewer rows than it says")
                piece.validate(full=True)  # offsets of a damaged file may point anywhere
            except (pa.ArrowException, OSError) as error:
                self._group = -1
                reason = f"the rows from {first:,} on cannot be read: {_line(error)}"
                self._broken[group] = first, reason
                raise ImageError(reason) from error
            self._recent.append((first, piece))
            self._next = first + len(piece)
            if row < self._next:
                return piece[row - first]


Choose = Callable[[pa.Schema], str]
"""Returns the name of the column to read."""


def open_parquet(path: Path, choose: Choose) -> tuple[str, TableRows]:
    """Return the column and its rows, read by row group and in bounded memory.

    Raises
    ------
    ImageError
        The file cannot be opened, or `choose` refuses.
    """
    try:
        file = pa.parquet.ParquetFile(
            path, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True
        )
    except (pa.ArrowException, OSError) as error:
        raise ImageError(f"not a Parquet file, or cut short: {_line(error)}") from error
    column = choose(file.schema_arrow)
    footer = file.metadata
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    starts, unfilled = [0], False
    read_size = []
    for group in groups:
        starts.append(starts[-1] + group.num_rows)
        parts = [group.column(number) for number in range(group.num_columns)]
        parts = [part for part in parts if f"{part.path_in_schema}.".startswith(f"{column}.")]
        size = sum(part.total_uncompressed_size for part in parts)
        read_size.append(min(max(_PIECE_BYTES * group.num_rows // max(size, 1), 1), _MOST_ROWS))
        unfilled = unfilled or any(
            part.statistics is None or part.statistics.null_count != 0
            for part in parts
            if part.path_in_schema == f"{column}.bytes"
        )

    def pieces(group: int) -> Iterator[pa.Array]:
        batches = file.iter_batches(read_size[group], row_groups=[group], columns=[column])
        return (batch.column(0) for batch in batches)

    return column, TableRows(starts, pieces, unfilled=unfilled)


def open_arrow(path: Path, choose: Choose) -> tuple[str, TableRows]:
    """Return the column and its rows from an Arrow file or stream, memory-mapped.

    Of a file that is cut short the record batches before the cut are read.

    Raises
    ------
    ImageError
        The file cannot be opened, or `choose` refuses.
    """
    try:
        mapped = pa.memory_map(str(path))
        whole = mapped.read_buffer(mapped.size())
        start = len(_ARROW_MAGIC) if whole[: len(_ARROW_MAGIC)] == _ARROW_MAGIC else 0
        schema = pa.ipc.open_stream(whole[start:]).schema
    except (pa.ArrowException, OSError) as error:
        raise ImageError(f"not an Arrow file, or cut short: {_line(error)}") from error
    column = choose(schema)
    place = schema.get_field_index(column)
    options = pa.ipc.IpcReadOptions(included_fields=[place], use_threads=False)

    def stream() -> Iterator[pa.Array]:
        for batch in pa.ipc.open_stream(whole[start:], options=options):
            yield batch.column(0)

    starts, ending, unfilled = [0], None, False
    views: list[pa.Array] | None = []  # None: compressed, so that each would take memory
    try:
        for array in stream():
            array.validate(full=True)
            starts.append(starts[-1] + len(array))
            unfilled = unfilled or _lacks_bytes(array)
            if views is not None and _is_view(array, whole):
                views.append(array)
            else:
                views = None
    except (pa.ArrowException, OSError) as error:
        ending = _line(error)
    if views is None:
        starts = [0, starts[-1]]
        return column, TableRows(starts, lambda _: stream(), ending=ending, unfilled=unfilled)
    kept = views

    def pieces(group: int) -> Iterator[pa.Array]:
        return iter([kept[group]])

    return column, TableRows(starts, pieces, ending=ending, unfilled=unfilled, random=True)


def _lacks_bytes(array: pa.Array) -> bool:
    if not pa.types.is_struct(array.type):
        return False
    return bool(array.field("bytes").null_count)


def _is_view(array: pa.Array, whole: pa.Buffer) -> bool:
    """Return whether the data of an array lie in the mapped file rather than in memory."""
    end = whole.address + whole.size
    return all(
        whole.address <= buffer.address < end
        for buffer in array.buffers()
        if buffer is not None and buffer.size
    )


def _line(error: BaseException) -> str:
    """Return the first line of a message of Arrow's."""
    text: Any = error.strerror if isinstance(error, OSError) and error.strerror else error
    return str(text).partition("\n")[0].rstrip(". ")
