"""Getting rows out: every read is checked against its checksum, and what fails is a miss."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import StoreError, UsageError
from .keys import FILL_VALUES, SCALE_FACTORS
from .keytable import place_of, segment_of, slot_of
from .pools import Pool
from .segments import CRC_BYTES, checksum, seeds_of, split_keys
from .space import add_counts, delete_segments, finish_eviction
from .state import HELPERS, Segment, State

_WORTH_SHARING = 1 << 20  # bytes of a read that more than one thread takes part in

Rows = NDArray[Any]
Job = tuple[int, int, int, int]  # index in the caller's buffer, place, checksum, seed
ReadRow = Callable[[int, int, int, int, Rows], bool]


class Reader:
    """Reads rows by key into the caller's buffer."""

    def __init__(self, state: State) -> None:
        self.state = state

    def get_many(self, keys: list[bytes], out: Rows) -> NDArray[np.bool_]:
        """Do what `fetch` does, and count hits and misses."""
        found = self.fetch(keys, out)
        hits = int(found.sum())
        self.state.count(hits=hits, misses=len(keys) - hits)
        return found

    def fetch(self, keys: list[bytes], out: Rows) -> NDArray[np.bool_]:
        """Fill ``out[i]`` with the row of ``keys[i]``; False where there is none to be had.

        Rows of `out` without a row in the store are filled with the pool's fill value, NaN where
        `out` is float32.
        """
        state = self.state
        state.sync()
        found = np.zeros(len(keys), bool)
        todo = list(range(len(keys)))
        seeds = seeds_of(split_keys(keys)) if keys else []
        touched: set[int] = set()
        while todo:
            places, checks = state.find([keys[i] for i in todo])
            jobs = [
                (i, place, check, seeds[i])
                for i, place, check in zip(todo, places.tolist(), checks.tolist(), strict=True)
                if place >= 0
            ]
            failed = self._read(jobs, out)
            found[[job[0] for job in jobs]] = True
            found[[job[0] for job in failed]] = False
            touched |= {segment_of(job[1]) for job in jobs}
            if failed:
                self._drop({keys[job[0]]: job[1] for job in failed})
            todo = [job[0] for job in failed]  # another copy may have been put meanwhile
        if not found.all():
            out[~found] = FILL_VALUES[out.dtype.name]
        state.touch(touched)
        return found

    def pool_of(self, key: bytes) -> Pool | None:
        """Return the pool that holds the row of a key, or None."""
        self.state.sync()
        place = int(self.state.find([key])[0][0])
        segment = self.state.segments.get(segment_of(place)) if place >= 0 else None
        return None if segment is None else segment.pool

    def _read(self, jobs: list[Job], out: Rows) -> list[Job]:
        """Read rows in the order in which they are stored; return those that failed."""
        jobs.sort(key=lambda job: job[1])
        for segment in {segment_of(job[1]) for job in jobs}:
            self._check_buffer(segment, out)
        nbytes = len(jobs) * out.shape[1] * out.itemsize
        if nbytes < _WORTH_SHARING or len(jobs) < HELPERS:
            return self._read_part(jobs, out)
        step = -(-len(jobs) // HELPERS)
        parts = [jobs[start : start + step] for start in range(0, len(jobs), step)]
        shared = [self.state.helpers.submit(self._read_part, part, out) for part in parts[1:]]
        failed = self._read_part(parts[0], out)
        for other in shared:
            failed += other.result()
        return failed

    def _check_buffer(self, segment_id: int, out: Rows) -> None:
        segment = self.state.segments.get(segment_id)
        if segment is None:
            return
        pool = segment.pool
        if out.shape[1] != pool.length or out.dtype.name not in (pool.dtype, "float32"):
            raise UsageError(
                f"rows of pool {pool.folder} are {pool.length} numbers of {pool.dtype} (or "
                f"float32 to convert); the buffer has {out.shape[1]} of {out.dtype}"
            )

    def _read_part(self, jobs: list[Job], out: Rows) -> list[Job]:
        failed = []
        current = -1
        read: ReadRow | None = None
        for job in jobs:
            at, place, check, seed = job
            if segment_of(place) != current:
                current = segment_of(place)
                read = self._row_reader(current, out)
            if read is None or not read(at, slot_of(place), check, seed, out):
                failed.append(job)
        return failed

    def _row_reader(self, segment_id: int, out: Rows) -> ReadRow | None:
        """Return the function that reads one row of a segment, or None if the segment is gone."""
        segment = self.state.segments.get(segment_id)
        file = None if segment is None else self.state.file_of(segment)
        if segment is None or file is None:
            return None
        convert = out.dtype.name != segment.pool.dtype
        if segment.pool.codec:
            return _packed_reader(self.state, segment, file.fd, convert, file)
        if convert:
            return _converting_reader(segment.pool, file.fd, file)
        return _plain_reader(segment.pool, file.fd, file)

    def _drop(self, failed: dict[bytes, int]) -> None:
        """Forget rows that could not be read, unless they are somewhere else by now."""
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
    """Take rows out of the index that are not what they should be; count them as corrupt.

    A segment without its file goes whole.
    """
    by_segment: dict[int, list[tuple[int, int]]] = {}
    for place in places:
        segment_id = segment_of(place)
        by_segment.setdefault(segment_id, []).append((segment_id, slot_of(place)))
    gone, single = [], []
    for segment_id, slots in by_segment.items():
        segment = state.segments[segment_id]
        if finish_eviction(state, transaction, segment):
            continue
        if state.sealed_path(segment).exists() or state.open_path(segment).exists():
            single += slots
        else:
            gone.append(segment_id)
    transaction.executemany("INSERT OR IGNORE INTO dropped (segment, slot) VALUES (?, ?)", single)
    lost = sum(
        transaction.execute(
            "SELECT rows - (SELECT count(*) FROM dropped WHERE segment = ?1) "
            "FROM segments WHERE id = ?1",
            (segment_id,),
        ).fetchone()[0]
        for segment_id in gone
    )
    delete_segments(state, transaction, gone)
    add_counts(transaction, corrupt_rows=len(single) + lost)

    def discard() -> None:
        with state.table_lock:
            state.table.discard_places({place_of(*pair) for pair in single})

    transaction.then(discard)


def _plain_reader(pool: Pool, fd: int, keep: object) -> ReadRow:
    stride, row_bytes = pool.stride, pool.row_bytes
    preadv = os.preadv

    def read(at: int, slot: int, check: int, seed: int, out: Rows, _keep: object = keep) -> bool:
        row = out[at]
        try:
            got = preadv(fd, [row], slot * stride)
        except OSError:
            return False
        return got == row_bytes and checksum(row, seed) == check

    return read


def _converting_reader(pool: Pool, fd: int, keep: object) -> ReadRow:
    scratch: Rows = np.empty((1, pool.length), pool.dtype)
    scale = np.float32(SCALE_FACTORS[pool.dtype])
    read_plain = _plain_reader(pool, fd, keep)

    def read(at: int, slot: int, check: int, seed: int, out: Rows) -> bool:
        if not read_plain(0, slot, check, seed, scratch):
            return False
        np.multiply(scratch[0], scale, out=out[at], dtype=np.float32)
        return True

    return read


def _packed_reader(state: State, segment: Segment, fd: int, convert: bool, keep: object) -> ReadRow:
    pool = segment.pool
    scratch: Rows = np.empty(pool.length, pool.dtype)
    scale = np.float32(SCALE_FACTORS[pool.dtype])

    def read(at: int, slot: int, check: int, seed: int, out: Rows, _keep: object = keep) -> bool:
        starts, sizes = state.extents_of(segment, slot)
        if slot >= len(sizes) or pool.decompress is None:
            return False
        size = int(sizes[slot]) - CRC_BYTES
        try:
            stored = os.pread(fd, size, int(starts[slot]))
        except OSError:
            return False
        if len(stored) != size or checksum(stored, seed) != check:
            return False
        pool.decompress(stored, scratch if convert else out[at])
        if convert:
            np.multiply(scratch, scale, out=out[at], dtype=np.float32)
        return True

    return read


def check_buffer(keys: Sequence[bytes], out: Rows) -> None:
    """Raise `UsageError` unless `out` can take one row for each key."""
    if out.ndim != 2 or len(out) != len(keys):
        raise UsageError(f"out must have shape ({len(keys)}, length), and it has {out.shape}")
    if out.dtype.name not in FILL_VALUES:
        raise UsageError(f"out must be {', '.join(FILL_VALUES)}, not {out.dtype}")
    if out.shape[1] and out.strides[1] != out.itemsize:
        raise UsageError("each row of out must be contiguous")
    if not out.flags.writeable:
        raise UsageError("out must be writeable")
