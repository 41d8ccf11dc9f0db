"""The rows of a segment: each with its crc32c, one after the other.

A segment is a Zarr v3 shard (codec ``sharding_indexed``, index at the end); an inner chunk is one
row followed by its crc32c. What follows the last row is in `footer`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

import google_crc32c
import numpy as np
import xxhash
from numpy.typing import NDArray

MOST_SLOTS = 1 << 14
CRC_BYTES = 4

# One row's entry in the index and in a segment's key table: the key's halves and the checksum.
RECORD = np.dtype([("hi", "<u8"), ("lo", "<u8"), ("check", "<u8")])

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
