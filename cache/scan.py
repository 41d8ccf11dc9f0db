"""Reading a whole pool in storage order, one batch ahead of the caller."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import IndexReplaced
from .keys import SCALE_FACTORS, PoolSpec
from .keytable import place_of
from .pools import Segment
from .reader import Reader
from .segments import CRC_BYTES, RECORD, checksum, seeds_of
from .state import State

Rows = NDArray[Any]
_BATCH_BYTES = 8 << 20
_MOST_AT_ONCE = 500  # rows in one read: two buffers each, and the system allows 1,024
_HOT_BYTES = 512 << 10  # rows read at once stay in the processor's cache until they are checked


@dataclass(frozen=True)
class _Run:
    """Consecutive rows of a segment."""

    segment: Segment
    slot: int
    records: NDArray[np.void]

    def part(self, start: int, end: int) -> "_Run":
        """Return the rows from `start` to `end` of this run."""
        return _Run(self.segment, self.slot + start, self.records[start:end])

    @property
    def keys(self) -> list[bytes]:
        raw = self.records.tobytes()
        size = RECORD.itemsize
        return [raw[at : at + 16] for at in range(0, len(raw), size)]


def scan(
    state: State, reader: Reader, spec: PoolSpec, *, batch_rows: int | None, dtype: str | None
) -> Iterator[tuple[list[bytes], Rows]]:
    """Yield (keys, rows) of a pool in storage order; see `FeatureStore.scan`.

    The caller must have synced `state` with the index.
    """
    kind = np.dtype(dtype or spec.dtype)
    count = batch_rows or max(1, _BATCH_BYTES // (spec.length * kind.itemsize))
    buffers = [np.empty((count, spec.length), kind) for _ in range(2)]

    def read(runs: list[_Run], out: Rows) -> tuple[list[bytes], Rows]:
        keys = [key for run in runs for key in run.keys]
        good = np.zeros(len(keys), bool)
        at = 0
        for run in runs:
            half, end = at + len(run.records) // 2, at + len(run.records)
            first, second = run.part(0, half - at), run.part(half - at, end - at)
            other = state.helpers.submit(_read_run, state, first, out[at:half], good[at:half])
            _read_run(state, second, out[half:end], good[half:end])
            other.result()
            at = end
        bad = np.flatnonzero(~good).tolist()
        if bad:  # read again the usual way: drops corrupt rows, finds those that moved
            again = out[bad]
            with contextlib.suppress(IndexReplaced):  # these rows then count as missing
                good[bad] = reader.fetch([keys[i] for i in bad], again)
                out[bad] = again
        if not good.all():
            kept = np.flatnonzero(good)
            out[: len(kept)] = out[kept]
            keys = [keys[i] for i in kept.tolist()]
        state.usage.touch({run.segment.id for run in runs})
        return keys, out[: len(keys)]

    ahead: Future[tuple[list[bytes], Rows]] | None = None
    with ThreadPoolExecutor(1, "lpipstore-scan") as thread:
        for number, runs in enumerate(_batches(state, spec, count)):
            following = thread.submit(read, runs, buffers[number % 2])
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()


def _batches(state: State, spec: PoolSpec, count: int) -> Iterator[list[_Run]]:
    """Yield batches to be read together: runs of up to `count` rows in total."""
    batch: list[_Run] = []
    room = count
    for run in _runs(state, spec):
        done = 0
        while done < len(run.records):
            part = run.part(done, done + room)
            batch.append(part)
            done += len(part.records)
            room -= len(part.records)
            if room == 0:
                yield batch
                batch, room = [], count
    if batch:
        yield batch


def _runs(state: State, spec: PoolSpec) -> Iterator[_Run]:
    """Yield the runs of current rows of a pool, one segment in memory at a time."""
    mine = [segment for segment in state.segments.values() if segment.pool.digest == spec.digest]
    for segment in sorted(mine, key=lambda segment: (segment.pool.id, segment.number)):
        with state.index.reading() as connection:
            entries = connection.execute(
                "SELECT records FROM entries WHERE segment = ? ORDER BY slot", (segment.id,)
            ).fetchall()
        records = np.frombuffer(b"".join(row[0] for row in entries), RECORD)
        whole = _Run(segment, 0, records)
        places, _ = state.find(whole.keys)
        first = place_of(segment.id, 0)
        living = places == np.arange(first, first + len(records))
        edges = np.flatnonzero(np.diff(living.astype(np.int8), prepend=0, append=0))
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            yield _Run(segment, start, records[start:end])


def _read_run(state: State, run: _Run, out: Rows, good: NDArray[np.bool_]) -> None:
    """Read a run's rows into `out`; set `good` to True for those that were verified."""
    pool = run.segment.pool
    file = state.files.get(run.segment)
    if file is None or pool.codec:
        return
    convert = out.dtype.name != pool.dtype
    halves = np.stack([run.records["hi"], run.records["lo"]], axis=1)
    seeds, checks = seeds_of(halves).tolist(), run.records["check"].tolist()
    step = max(1, min(_MOST_AT_ONCE, _HOT_BYTES // pool.stride))
    scratch: Rows = np.empty((step, pool.length), pool.dtype) if convert else out
    gap = bytearray(CRC_BYTES)
    for start in range(0, len(checks), step):
        end = min(start + step, len(checks))
        rows = scratch[: end - start] if convert else out[start:end]
        buffers = [buffer for row in rows for buffer in (row, gap)]
        try:
            got = file.read_at(buffers, (run.slot + start) * pool.stride)
        except OSError:
            continue
        whole = got // pool.stride
        for at in range(min(end - start, whole)):
            good[start + at] = checksum(rows[at], seeds[start + at]) == checks[start + at]
        if convert:
            scale = np.float32(SCALE_FACTORS[pool.dtype])
            np.multiply(rows, scale, out=out[start:end], dtype=np.float32)
