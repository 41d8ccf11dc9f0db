"""Byte layout of a segment: the rows, then their key table, then the shard's index.

A segment is a Zarr v3 shard (codec ``sharding_indexed``, index at the end); an inner chunk is one
row followed by its crc32c. Between the last row and the shard's index is the key table: the keys,
checksums and sizes of the rows. Zarr never reads it; the store's index can be rebuilt from it.
"""

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import google_crc32c
import numpy as np
import xxhash
from numpy.typing import NDArray

MOST_SLOTS = 1 << 14
CRC_BYTES = 4

# One row's entry in the index and in a segment's key table: the key's halves and the checksum.
RECORD = np.dtype([("hi", "<u8"), ("lo", "<u8"), ("check", "<u8")])

_MAGIC = b"LPSTROW1"
_TRAILER = struct.Struct("<8sQI")  # magic, number of rows, crc32c of the key table
_TABLE_BYTES = RECORD.itemsize + 8  # a record and the row's size
_ABSENT = 2**64 - 1  # how the Zarr specification marks a chunk that is not in its shard
_GROUP_BYTES = 2 << 20  # one write: long enough to hide the hand-over between two threads
_MOST_IN_GROUP = 500  # rows: two buffers each, and the system allows 1,024

Compressor = Callable[[NDArray[np.generic]], bytes]
_Result = TypeVar("_Result")
Row = NDArray[np.generic]
Stored = Any  # an array or bytes: NumPy's stubs call no array a buffer before Python 3.12


@dataclass(frozen=True)
class Written:
    """Rows as written to a segment: their records and their sizes in bytes."""

    records: NDArray[np.void]
    sizes: NDArray[np.int64]


def split_keys(keys: Sequence[bytes]) -> NDArray[np.uint64]:
    """Return the halves of 16-byte keys as an array of shape (n, 2)."""
    return np.frombuffer(b"".join(keys), "<u8").reshape(-1, 2)


def seed_of(key: bytes) -> int:
    """Return the seed of one key's checksum."""
    return int(seeds_of(split_keys([key]))[0])


def seeds_of(halves: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the checksum seed of each key, so that a row in the wrong slot fails its checksum."""
    seeds: NDArray[np.uint64] = halves[:, 0] ^ (halves[:, 1] * np.uint64(0x9E3779B97F4A7C15))
    return seeds


def checksum(stored: Stored, seed: int) -> int:
    """Return the xxh3-64 of a row's bytes as stored, seeded with its key."""
    return xxhash.xxh3_64_intdigest(stored, seed)


def crc_bytes(data: Stored) -> bytes:
    """Return the crc32c as the Zarr codec of that name writes it."""
    crc: int = google_crc32c.value(data)
    return crc.to_bytes(CRC_BYTES, "little")


def write_rows(
    fd: int,
    offset: int,
    rows: Sequence[Row],
    keys: Sequence[bytes],
    compress: Compressor | None,
    helpers: Executor,
) -> Written:
    """Write rows from `offset` on, each with its crc32c; return what the index has to record.

    Checksums are computed by the helpers while earlier rows are written. If this raises `OSError`,
    an unknown part of the rows has been written after `offset`.
    """
    halves = split_keys(keys)
    seeds = seeds_of(halves).tolist()

    def prepare(group: slice) -> tuple[list[Stored], list[int], list[int]]:
        buffers: list[Stored] = []
        checks = []
        sizes = []
        for row, seed in zip(rows[group], seeds[group], strict=True):
            stored: Stored = row if compress is None else compress(row)
            crc = crc_bytes(stored)
            checks.append(checksum(stored, seed))
            buffers += (stored, crc)
            sizes.append((stored.nbytes if isinstance(stored, np.ndarray) else len(stored)) + 4)
        return buffers, checks, sizes

    checks: list[int] = []
    sizes: list[int] = []
    for buffers, some_checks, some_sizes in _one_ahead(
        prepare, _groups(len(rows), rows[0].nbytes), helpers
    ):
        written = sum(some_sizes)
        write_all(fd, buffers, offset, written)
        offset += written
        checks += some_checks
        sizes += some_sizes
    records = np.empty(len(rows), RECORD)
    records["hi"], records["lo"] = halves.T
    records["check"] = checks
    return Written(records, np.array(sizes, np.int64))


def _one_ahead(
    work: Callable[[slice], _Result], groups: Sequence[slice], helpers: Executor
) -> Iterator[_Result]:
    """Yield the result of `work` for each group while a helper works on the next group.

    Only one group ahead: Python hashes in one thread at a time, so a writer returning from a
    system call would otherwise have to wait until everything is hashed.
    """
    ready = work(groups[0])
    for following in groups[1:]:
        ahead = helpers.submit(work, following)
        try:
            yield ready
        finally:
            ahead.exception()  # no helper may still read the rows when the caller gets control
        ready = ahead.result()
    yield ready


def _groups(count: int, row_bytes: int) -> list[slice]:
    """Cut rows into groups to write one by one; the first are small, so writing starts soon."""
    most = max(1, min(_MOST_IN_GROUP, _GROUP_BYTES // row_bytes))
    groups, start, step = [], 0, 1
    while start < count:
        groups.append(slice(start, min(start + step, count)))
        start, step = start + step, min(2 * step, most)
    return groups


def write_all(fd: int, buffers: Sequence[Stored], offset: int, total: int) -> None:
    """Write buffers of `total` bytes at `offset`, resuming after partial writes."""
    done = os.pwritev(fd, buffers, offset)
    if done == total:
        return
    rest = memoryview(b"".join(bytes(memoryview(b).cast("B")) for b in buffers))
    while done < total:
        done += os.pwrite(fd, rest[done:], offset + done)


@dataclass
class Contents:
    """The contents of a segment: the record and the position of each row.

    `starts` and `sizes` (including the 4-byte crc32c) are in bytes. Row k is in slot k.
    """

    records: NDArray[np.void] = field(default_factory=lambda: np.empty(0, RECORD))
    sizes: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(cls, parts: Iterable[Written]) -> "Contents":
        """Join parts that were written one after the other."""
        listed = list(parts)
        if not listed:
            return cls()
        return cls(
            np.concatenate([part.records for part in listed]),
            np.concatenate([part.sizes for part in listed]),
        )

    @property
    def starts(self) -> NDArray[np.int64]:
        """Offset of the start of each row."""
        return np.cumsum(self.sizes) - self.sizes

    @property
    def end(self) -> int:
        """Offset of the end of the last row."""
        return int(self.sizes.sum())


def index_bytes(slots: int) -> int:
    """Return the bytes of a shard's index."""
    return 16 * slots + CRC_BYTES


def footer_bytes(rows: int, slots: int) -> int:
    """Return the bytes that sealing adds to a segment of that many rows."""
    return rows * _TABLE_BYTES + _TRAILER.size + index_bytes(slots)


def footer(contents: Contents, slots: int) -> bytes:
    """Return what sealing appends: key table, trailer, shard index."""
    table = contents.records.tobytes() + contents.sizes.astype("<i8").tobytes()
    trailer = _TRAILER.pack(_MAGIC, len(contents.records), google_crc32c.value(table))
    return table + trailer + shard_index(contents, slots, set())


def shard_index(contents: Contents, slots: int, absent: set[int]) -> bytes:
    """Return the index at the end of a shard: each row's position, without slots in `absent`."""
    index = np.full((slots, 2), _ABSENT, "<u8")
    index[: len(contents.sizes), 0] = contents.starts
    index[: len(contents.sizes), 1] = contents.sizes
    index[sorted(absent)] = _ABSENT
    return index.tobytes() + crc_bytes(index.tobytes())


def absent_slots(fd: int, rows: int, slots: int) -> set[int] | None:
    """Return which of a sealed segment's rows its shard index marks as absent; None if damaged."""
    at_index = os.fstat(fd).st_size - index_bytes(slots)
    if at_index < 0:
        return None
    raw = os.pread(fd, index_bytes(slots), at_index)
    if crc_bytes(raw[:-CRC_BYTES]) != raw[-CRC_BYTES:]:
        return None
    starts = np.frombuffer(raw[:-CRC_BYTES], "<u8").reshape(slots, 2)[:rows, 0]
    absent: set[int] = set(np.flatnonzero(starts == _ABSENT).tolist())
    return absent


def read_footer(fd: int, slots: int) -> Contents | None:
    """Return the contents of a sealed segment by its key table, or None if that is damaged."""
    at_trailer = os.fstat(fd).st_size - index_bytes(slots) - _TRAILER.size
    if at_trailer < 0:
        return None
    trailer = os.pread(fd, _TRAILER.size, at_trailer)
    if len(trailer) < _TRAILER.size:  # it was just emptied
        return None
    magic, rows, crc = _TRAILER.unpack(trailer)
    at_table = at_trailer - rows * _TABLE_BYTES
    if magic != _MAGIC or rows > slots or at_table < 0:
        return None
    table = os.pread(fd, at_trailer - at_table, at_table)
    if google_crc32c.value(table) != crc:
        return None
    split = rows * RECORD.itemsize
    contents = Contents(
        np.frombuffer(table[:split], RECORD), np.frombuffer(table[split:], "<i8").astype(np.int64)
    )
    return contents if contents.end == at_table else None
