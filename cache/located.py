"""Where rows lie, as plain data: any process that reads the files has them, without the index."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from .errors import StoreError
from .keytable import SLOT_BITS, SLOT_MASK
from .pools import Segment, decompressor
from .segmentfiles import Buffers, LocalFile, open_local
from .segments import CRC_BYTES, checksum, seeds_of, split_keys
from .state import State

_AT_ONCE = 16 << 20  # bytes of rows that are read together


class RowsLost(StoreError):  # noqa: N818 - named for the condition
    """Rows are no longer where they lay, or are damaged there; `keys` are theirs."""

    def __init__(self, message: str, keys: Sequence[bytes]) -> None:
        super().__init__(message)
        self.keys = list(keys)

    def __reduce__(self) -> tuple[type["RowsLost"], tuple[str, list[bytes]]]:
        return type(self), (self.message, self.keys)


class RowSource(Protocol):
    """A segment that holds rows, as plain data: how a process gets at its bytes.

    `RowFile` reads the file. Another one may ask a process that sees it.
    """

    @property
    def sealed(self) -> str:
        """Its path once sealed, for messages."""

    @property
    def codec(self) -> str:
        """The codec of its rows; empty if they are not compressed."""

    def read_rows(self, rooms: Buffers, offsets: Sequence[int]) -> list[bool]:
        """Fill each writable buffer from its offset on; return which of them were filled."""


@dataclass(frozen=True)
class RowFile:
    """A segment that this process sees: its path once sealed, and while it is written."""

    sealed: str
    staged: str
    codec: str

    def read_rows(self, rooms: Buffers, offsets: Sequence[int]) -> list[bool]:
        """Read rows from the file; see `RowSource.read_rows`."""
        file = self._open()
        if file is None:
            return [False] * len(rooms)
        filled = []
        for room, offset in zip(rooms, offsets, strict=True):
            try:
                filled.append(file.read_at([room], offset) == memoryview(room).nbytes)
            except OSError:
                filled.append(False)
        return filled

    def _open(self) -> LocalFile | None:
        """Open the segment; None if it is gone."""
        with contextlib.suppress(OSError):
            paths = self.sealed, self.staged, self.sealed  # it may be sealed in between
            return next(filter(None, (open_local(Path(path)) for path in paths)), None)
        return None


@dataclass(frozen=True, eq=False)
class Located:
    """Rows of one kind by the places where they lie. Pickled, it takes about 48 bytes per row.

    Attributes
    ----------
    files
        The segments.
    file_of, offsets, sizes
        int64 [n]: the number of each row's segment, and its bytes there without the crc32c.
    checks
        uint64 [n]: the checksum of each row as stored.
    halves
        uint64 [n, 2]: the keys, see `lpipstore.cache.segments.split_keys`.
    length, dtype
        Of a row.
    """

    files: tuple[RowSource, ...]
    file_of: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    checks: NDArray[np.uint64]
    halves: NDArray[np.uint64]
    length: int
    dtype: str

    def __len__(self) -> int:
        return len(self.file_of)

    def __getitem__(self, which: slice | NDArray[np.integer[Any]]) -> "Located":
        """Return where some of the rows lie; only their segments are kept."""
        numbers, file_of = np.unique(self.file_of[which], return_inverse=True)
        return replace(
            self,
            files=tuple(self.files[number] for number in numbers.tolist()),
            file_of=file_of.astype(np.int64),
            offsets=self.offsets[which],
            sizes=self.sizes[which],
            checks=self.checks[which],
            halves=self.halves[which],
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the rows once they are read."""
        return len(self) * self.length * np.dtype(self.dtype).itemsize

    @property
    def keys(self) -> list[bytes]:
        """The key of each row."""
        raw = self.halves.astype("<u8").tobytes()
        return [raw[at : at + 16] for at in range(0, len(raw), 16)]

    def names(self) -> list[bytes]:
        """Return key and checksum of each row (24 bytes): equal for equal rows, wherever."""
        raw = np.column_stack([self.halves, self.checks]).tobytes()
        return [raw[at : at + 24] for at in range(0, len(raw), 24)]

    def digest(self) -> bytes:
        """Return what equal rows in equal order have in common, wherever they lie (16 bytes)."""
        return xxhash.xxh3_128_digest(self.halves.tobytes() + self.checks.tobytes())

    def read(self) -> NDArray[np.generic]:
        """Read and verify the rows, [n, length]; see `read_into`."""
        out: NDArray[Any] = np.empty((len(self), self.length), self.dtype)
        self.read_into(out, np.arange(len(self)))
        return out

    def read_into(self, out: NDArray[Any], places: NDArray[np.integer[Any]]) -> None:
        """Read and verify the rows; write number k to ``out[places[k]]``.

        Raises
        ------
        RowsLost
            Some are not there, or damaged.
        """
        seeds = seeds_of(self.halves).tolist()
        lost: list[int] = []
        for file, rows in self._together():
            unpack = decompressor() if file.codec else None
            sizes = self.sizes[rows].tolist()
            rooms: list[Any] = (
                [out[place] for place in places[rows].tolist()]
                if unpack is None
                else [memoryview(bytearray(size)) for size in sizes]
            )
            filled = file.read_rows(rooms, self.offsets[rows].tolist())
            for row, stored, whole in zip(rows.tolist(), rooms, filled, strict=True):
                if not whole or checksum(stored, seeds[row]) != int(self.checks[row]):
                    lost.append(row)
                elif unpack is not None:
                    unpack(stored, out[places[row]])
        if lost:
            keys = self.keys
            raise RowsLost(
                f"{len(lost):,} of {len(self):,} rows are gone from the store or damaged, or this "
                f"host does not see its files, such as {self.files[0].sealed}",
                [keys[row] for row in sorted(lost)],
            )

    def _together(self) -> Iterator[tuple[RowSource, NDArray[np.intp]]]:
        """Yield segments and numbers of rows in them, in their order there, a few MB at a time."""
        for number, file in enumerate(self.files):
            rows = np.flatnonzero(self.file_of == number)
            rows = rows[np.argsort(self.offsets[rows], kind="stable")]
            groups = (np.cumsum(self.sizes[rows]) - 1) // _AT_ONCE
            for group in np.split(rows, np.flatnonzero(np.diff(groups)) + 1):
                yield file, group


def locate(state: State, keys: list[bytes], length: int, dtype: str) -> Located:
    """Return where rows lie; see `lpipstore.cache.store.FeatureStore.locate`.

    Raises
    ------
    RowsLost
        The index does not know some of them.
    """
    places, checks = state.find(keys)
    segments = {
        number: state.segments.get(number) for number in np.unique(places >> SLOT_BITS).tolist()
    }
    known = {number: segment for number, segment in segments.items() if segment is not None}
    absent = ~np.isin(places >> SLOT_BITS, list(known)) | (places < 0)
    if absent.any():
        lost = [keys[at] for at in np.flatnonzero(absent).tolist()]
        raise RowsLost(f"{len(lost):,} of {len(keys):,} rows are not in the store", lost)
    state.usage.touch(known)
    numbers, file_of = np.unique(places >> SLOT_BITS, return_inverse=True)
    slots = places & SLOT_MASK
    offsets, sizes = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
    files = []
    for at, number in enumerate(numbers.tolist()):
        here, segment = file_of == at, known[number]
        offsets[here], sizes[here] = _extents(state, segment, slots[here])
        staged = str(state.staging.path(segment.open_name))
        files.append(RowFile(state.where(segment), staged, segment.pool.codec))
    return Located(
        tuple(files),
        file_of.astype(np.int64),
        offsets,
        sizes,
        checks,
        split_keys(keys),
        length,
        dtype,
    )


def _extents(
    state: State, segment: Segment, slots: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the offsets of rows in a segment, and their sizes without the crc32c."""
    pool = segment.pool
    if not pool.codec:
        return slots * pool.stride, np.full(len(slots), pool.row_bytes)
    starts, sizes = state.files.extents(segment, int(slots.max(initial=0)))
    return starts[slots], sizes[slots] - CRC_BYTES
