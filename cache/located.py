"""Where rows lie, as plain data: any process that sees the files reads them, without the index."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from .errors import StoreError
from .keytable import SLOT_BITS, SLOT_MASK
from .pools import Segment, decompressor
from .segmentfiles import LocalFile, open_local
from .segments import CRC_BYTES, checksum, seeds_of, split_keys
from .state import State


class RowsLost(StoreError):  # noqa: N818 - named for the condition
    """Rows are no longer where they lay, or are damaged there; `keys` are theirs."""

    def __init__(self, message: str, keys: Sequence[bytes]) -> None:
        super().__init__(message)
        self.keys = list(keys)

    def __reduce__(self) -> tuple[type["RowsLost"], tuple[str, list[bytes]]]:
        return type(self), (self.message, self.keys)


@dataclass(frozen=True)
class RowFile:
    """A segment that holds rows: its path once sealed, and while it is written, and its codec."""

    sealed: str
    staged: str
    codec: str

    def open(self) -> LocalFile | None:
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

    files: tuple[RowFile, ...]
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

    def digest(self) -> bytes:
        """Return what equal rows in equal order have in common, wherever they lie (16 bytes)."""
        return xxhash.xxh3_128_digest(self.halves.tobytes() + self.checks.tobytes())

    def read(self) -> NDArray[np.generic]:
        """Read and verify the rows, [n, length].

        Raises
        ------
        RowsLost
            Some are not there, or damaged.
        """
        out: NDArray[Any] = np.empty((len(self), self.length), self.dtype)
        seeds = seeds_of(self.halves).tolist()
        lost: list[int] = []
        for number, file in enumerate(self.files):
            rows = np.flatnonzero(self.file_of == number)
            opened = file.open()
            if opened is None:
                lost += rows.tolist()
                continue
            decompress = decompressor() if file.codec else None
            for row in rows[np.argsort(self.offsets[rows], kind="stable")].tolist():
                size = int(self.sizes[row])
                stored: Any = out[row] if decompress is None else memoryview(bytearray(size))
                try:
                    whole = opened.read_at([stored], int(self.offsets[row])) == size
                except OSError:
                    whole = False
                if not whole or checksum(stored, seeds[row]) != int(self.checks[row]):
                    lost.append(row)
                elif decompress is not None:
                    decompress(stored, out[row])
        if lost:
            keys = self.keys
            raise RowsLost(
                f"{len(lost):,} of {len(self):,} rows are gone from the store or damaged, or this "
                f"host does not see its files, such as {self.files[0].sealed}",
                [keys[row] for row in sorted(lost)],
            )
        return out


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
