"""Reading rows: every row is verified against its checksum, and one that fails is a miss."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from .errors import StoreError, UsageError
from .eviction import delete_segments, finish_eviction
from .keys import FILL_VALUES, SCALE_FACTORS
from .keytable import SLOT_BITS, SLOT_MASK, place_of, segment_of, slot_of
from .pools import COMPRESSOR_BYTES, Pool, Segment
from .segmentfiles import SegmentFile
from .segments import CRC_BYTES, checksum, seed_of, seeds_of, split_keys
from .state import HELPERS, State
from .usage import add_counts

_WORTH_SHARING = 1 << 20  # reads of this many bytes or more are split among threads

Rows = NDArray[Any]
Row = Any  # one row of the caller's array: a buffer, which NumPy's stubs do not say
ReadRow = Callable[[int, int, int, Row], bool]


class Jobs(NamedTuple):
    """Rows to be read, sorted by place: index in the output, place, checksum, seed."""

    at: NDArray[np.int64]
    places: NDArray[np.int64]
    checks: NDArray[np.uint64]
    seeds: NDArray[np.uint64]

    def part(self, which: Any) -> "Jobs":  # noqa: ANN401 - whatever indexes an array
        """Return the selected jobs."""
        return Jobs(*(column[which] for column in self))


class Reader:
    """Reads rows by key into the caller's buffer."""

    def __init__(self, state: State) -> None:
        self.state = state

    def get_many(self, keys: list[bytes], out: Rows) -> NDArray[np.bool_]:
        """Call `fetch`, and count hits and misses."""
        found = self.fetch(keys, out)
        hits = int(found.sum())
        self.state.usage.count(hits=hits, misses=len(keys) - hits)
        return found

    def fetch(self, keys: list[bytes], out: Rows) -> NDArray[np.bool_]:
        """Fill ``out[i]`` with the row of ``keys[i]``; return False for each miss.

        Misses are filled with the fill value of the dtype of `out` (NaN for float32).
        """
        state = self.state
        state.sync()
        found = np.zeros(len(keys), bool)
        todo = np.arange(len(keys))
        while len(todo):
            asked = keys if len(todo) == len(keys) else [keys[i] for i in todo.tolist()]
            places, checks = state.find(asked)
            seeds = seeds_of(split_keys(asked))
            jobs = Jobs(todo, places, checks, seeds).part(places >= 0)
            jobs = jobs.part(np.argsort(jobs.places, kind="stable"))
            segments = np.unique(jobs.places >> SLOT_BITS).tolist()
            self._check_buffer(segments, out)
            state.usage.touch(segments)
            failed = self._read(jobs, out)
            found[jobs.at] = True
            todo = jobs.at[failed]  # another copy may have been put meanwhile
            found[todo] = False
            if failed:
                lost = zip(todo.tolist(), jobs.places[failed].tolist(), strict=True)
                self._drop({keys[i]: place for i, place in lost})
        if not found.all():
            out[~found] = FILL_VALUES[out.dtype.name]
        return found

    def get(self, key: bytes) -> Rows | None:
        """Return a copy of one row as stored, or None; counts the hit or miss."""
        state = self.state
        state.sync()
        with state.table_lock:
            place, check = state.table.find_one(key)
        segment = state.segments.get(segment_of(place)) if place >= 0 else None
        if segment is None:
            state.usage.count(misses=1)
            return None
        row: Rows = np.empty(segment.pool.length, segment.pool.dtype)
        read = self._row_reader(segment.id, segment.pool.dtype)
        if read is not None and read(slot_of(place), check, seed_of(key), row):
            state.usage.touch([segment.id])
            state.usage.count(hits=1)
            return row
        return row if self.get_many([key], row[None])[0] else None

    def _read(self, jobs: Jobs, out: Rows) -> list[int]:
        """Read rows in storage order; return the numbers of the jobs that failed."""
        count = len(jobs.at)
        nbytes = count * out.shape[1] * out.itemsize
        if nbytes < _WORTH_SHARING or count < HELPERS:
            return self._read_part(jobs, 0, count, out)
        edges = [count * part // HELPERS for part in range(HELPERS + 1)]
        shared = [
            self.state.helpers.submit(self._read_part, jobs, start, end, out)
            for start, end in itertools.pairwise(edges[1:])
        ]
        failed = self._read_part(jobs, 0, edges[1], out)
        for other in shared:
            failed += other.result()
        return failed

    def _check_buffer(self, segments: list[int], out: Rows) -> None:
        known = [self.state.segments.get(segment) for segment in segments]
        pools = {segment.pool.id: segment.pool for segment in known if segment is not None}
        for pool in pools.values():
            if out.shape[1] != pool.length or out.dtype.name not in (pool.dtype, "float32"):
                raise UsageError(
                    f"rows of pool {pool.folder} are {pool.length} numbers of {pool.dtype} (or "
                    f"float32 to convert); the buffer has {out.shape[1]} of {out.dtype}"
                )

    def _read_part(self, jobs: Jobs, start: int, end: int, out: Rows) -> list[int]:
        failed = []
        current = -1
        read: ReadRow | None = None
        part = jobs.part(slice(start, end))
        columns = (column.tolist() for column in part)
        for job, (at, place, check, seed) in enumerate(zip(*columns, strict=True), start):
            if place >> SLOT_BITS != current:
                current = place >> SLOT_BITS
                read = self._row_reader(current, out.dtype.name)
            if read is None or not read(place & SLOT_MASK, check, seed, out[at]):
                failed.append(job)
        return failed

    def _row_reader(self, segment_id: int, dtype: str) -> ReadRow | None:
        """Return the function that reads one row of a segment, or None if the segment is gone."""
        segment = self.state.segments.get(segment_id)
        file = None if segment is None else self.state.files.get(segment)
        if segment is None or file is None:
            return None
        if segment.pool.codec:
            read = _packed_reader(self.state, segment, file)
        else:
            read = _plain_reader(segment.pool, file)
        return read if dtype == segment.pool.dtype else _converting(read, segment.pool)

    def _drop(self, failed: dict[bytes, int]) -> None:
        """Drop rows that could not be read, unless they have a new place by now."""
        state = self.state
        try:
            with state.transaction() as transaction:
                places, _ = state.find(list(failed))
                still = {
                    place
                    for place, before in zip(places.tolist(), failed.values(), strict=True)
                    if place == before
                }
                drop_places(state, transaction, still)
        except StoreError:  # a full disk must not turn a miss into an error
            with state.table_lock:
                state.table.discard_places(set(failed.values()))


def drop_places(state: State, transaction: Any, places: set[int]) -> None:  # noqa: ANN401
    """Remove corrupt rows from the index, and count them.

    A segment whose file is gone is removed as a whole.
    """
    by_segment: dict[int, list[tuple[int, int]]] = {}
    for place in places:
        segment_id = segment_of(place)
        by_segment.setdefault(segment_id, []).append((segment_id, slot_of(place)))
    gone, single = [], []
    for segment_id, slots in by_segment.items():
        segment = state.segments.get(segment_id)
        if segment is None or finish_eviction(state, transaction, segment):
            continue
        if state.has_file(segment):
            single += slots
        else:
            gone.append(segment_id)
    transaction.executemany("INSERT OR IGNORE INTO dropped (segment, slot) VALUES (?, ?)", single)
    lost = sum(state.living_rows(state.segments[segment_id]) for segment_id in gone)
    delete_segments(state, transaction, gone)
    add_counts(transaction, corrupt_rows=len(single) + lost)

    def discard() -> None:
        with state.table_lock:
            state.table.discard_places({place_of(*pair) for pair in single})

    transaction.then(discard)


def _plain_reader(pool: Pool, file: SegmentFile) -> ReadRow:
    stride, row_bytes = pool.stride, pool.row_bytes
    xxh3 = xxhash.xxh3_64_intdigest  # `checksum`, without the extra call

    def read(slot: int, check: int, seed: int, row: Row) -> bool:
        try:
            return file.read_at([row], slot * stride) == row_bytes and xxh3(row, seed) == check
        except OSError:
            return False

    return read


def _converting(read_stored: ReadRow, pool: Pool) -> ReadRow:
    scratch: Row = np.empty(pool.length, pool.dtype)
    scale = np.float32(SCALE_FACTORS[pool.dtype])

    def read(slot: int, check: int, seed: int, row: Row) -> bool:
        if not read_stored(slot, check, seed, scratch):
            return False
        np.multiply(scratch, scale, out=row, dtype=np.float32)
        return True

    return read


def _packed_reader(state: State, segment: Segment, file: SegmentFile) -> ReadRow:
    decompress = segment.pool.decompress
    most: Row = np.empty(segment.pool.row_bytes + COMPRESSOR_BYTES, np.uint8)
    scratch = memoryview(most)

    def read(slot: int, check: int, seed: int, row: Row) -> bool:
        starts, sizes = state.files.extents(segment, slot)
        if slot >= len(sizes) or decompress is None:
            return False
        size = int(sizes[slot]) - CRC_BYTES
        stored = scratch[:size]
        try:
            got = file.read_at([stored], int(starts[slot]))
        except OSError:
            return False
        if got != size or checksum(stored, seed) != check:
            return False
        decompress(stored, row)
        return True

    return read


def check_buffer(keys: Sequence[bytes], out: Rows) -> None:
    """Raise `UsageError` unless `out` can take one row for each key."""
    if out.ndim != 2 or len(out) != len(keys):
        raise UsageError(f"out must have shape ({len(keys)}, length), and it has {out.shape}")
    if out.dtype.name not in FILL_VALUES:
        raise UsageError(f"out must be {', '.join(FILL_VALUES)}, not {out.dtype}")
    if not out.dtype.isnative:
        raise UsageError(f"out must be in the machine's byte order, not {out.dtype.str}")
    if out.shape[1] and out.strides[1] != out.itemsize:
        raise UsageError("each row of out must be contiguous")
    if not out.flags.writeable:
        raise UsageError("out must be writeable")
