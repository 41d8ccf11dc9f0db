"""Writing rows: to an open segment, committed in one transaction, sealed when full."""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from .disk import disk_errors, whole_bytes
from .errors import StoreError
from .eviction import Reserved, delete_segments, reserve
from .footer import Contents
from .index import Transaction
from .keys import PoolSpec
from .keytable import segment_of
from .pools import Segment, grow
from .segments import RECORD, Row, Written, write_rows
from .staging import StagedFile
from .state import POOLS, State
from .usage import next_use


@dataclass
class OpenSegment:
    """A segment that this process is writing, and what it has committed so far."""

    segment: Segment
    file: StagedFile
    capacity: int
    parts: list[Written] = field(default_factory=list)
    rows: int = 0
    tail: int = 0

    def take(self, parts: list[Written]) -> None:
        """Record rows that have been written after the existing ones."""
        self.parts += parts
        self.rows += sum(len(part.records) for part in parts)
        self.tail += sum(int(part.sizes.sum()) for part in parts)

    @property
    def free(self) -> int:
        """Number of rows that still fit."""
        return self.capacity - self.rows


class Writer:
    """Writes rows to one open segment per pool; a process runs one put at a time.

    Parameters
    ----------
    codec
        How rows are compressed: ``""`` (not at all) or ``"lz4"``.
    """

    def __init__(self, state: State, codec: str) -> None:
        self.state = state
        self.codec = codec
        self._lock = threading.Lock()
        self._open: dict[bytes, OpenSegment] = {}

    def put(self, spec: PoolSpec, keys: Sequence[bytes], rows: Sequence[Row]) -> int:
        """Put rows under their keys; return how many were admitted or already stored.

        Rows already stored are not written again. All rows counted in the result are committed.
        If it raises, the batches before the one that failed stay committed.

        Raises
        ------
        StoreFull
            No space left on the disk.
        """
        with self._lock, disk_errors(self.state.path):
            self.state.sync()
            places, _ = self.state.find(list(keys))
            self.state.usage.touch({segment_of(place) for place in places[places >= 0].tolist()})
            wanted: dict[bytes, int] = {}
            for at in np.flatnonzero(places < 0).tolist():
                wanted.setdefault(keys[at], at)
            absent = self._put_new(spec, list(wanted), [rows[at] for at in wanted.values()])
        return sum(key not in absent for key in keys)

    def _put_new(self, spec: PoolSpec, keys: list[bytes], rows: list[Row]) -> set[bytes]:
        """Write rows; return the keys of those that did not fit."""
        done = 0
        while done < len(keys):
            target = self._target(spec)
            if target is None:
                break
            batch = slice(done, done + target.free)
            if self._append(target, keys[batch], rows[batch]):
                done += len(keys[batch])
            if target.free == 0:
                self._seal(target)
        return set(keys[done:])

    def _target(self, spec: PoolSpec) -> OpenSegment | None:
        target = self._open.get(spec.digest)
        if target is not None and target.free == 0:  # an earlier seal found no space
            self._seal(target)
            target = None
        if target is None:
            reserved: Reserved | None = reserve(self.state, spec, self.codec)
            if reserved is None:
                return None
            target = OpenSegment(reserved.segment, reserved.file, reserved.rows)
            self._open[spec.digest] = target
        return target

    def _append(self, target: OpenSegment, keys: list[bytes], rows: list[Row]) -> bool:
        """Write and commit rows; False, with nothing kept, if the segment is no longer ours."""
        try:
            written = write_rows(
                target.file.fd,
                target.tail,
                rows,
                keys,
                target.segment.pool.compress,
                self.state.helpers,
            )
            if self.state.durable:
                os.fdatasync(target.file.fd)
                if not target.rows:  # its name has not been synced either
                    self.state.staging.sync()
            kept = self._commit(target, written, keys)
            if kept:
                target.take([written])
        except BaseException:
            self._settle(target)
            raise
        if not kept:
            self._forget(target)
            target.file.close()
        return kept

    def _forget(self, target: OpenSegment) -> None:
        self._open = {at: other for at, other in self._open.items() if other is not target}

    def _settle(self, target: OpenSegment) -> None:
        """Truncate after the last committed row; an interrupt may have come after the commit.

        If the index cannot be read, the segment is left to a recovery.
        """
        self._forget(target)
        try:
            with self.state.index.reading() as connection:
                contents = committed(connection, target.segment)
            os.ftruncate(target.file.fd, contents.end)
        except (StoreError, OSError):
            target.file.close()
            return
        target.parts, target.rows, target.tail = [], 0, 0
        target.take([Written(contents.records, contents.sizes)])
        self._open[target.segment.pool.digest] = target

    def _commit(self, target: OpenSegment, written: Written, keys: list[bytes]) -> bool:
        segment, slot, rows = target.segment, target.rows, len(written.records)
        state = self.state
        with state.transaction() as transaction:
            ours = transaction.execute(
                "UPDATE segments SET rows = rows + ?, used = ? WHERE id = ? AND NOT sealed",
                (rows, next_use(transaction), segment.id),
            ).rowcount
            if not ours:
                return False
            entry = enter_rows(transaction, segment, slot, written)
            for pin in state.pins:
                pin.keep(transaction, segment.id, keys)
            transaction.then(lambda: state.entered(entry, segment, slot, written.records))
        return True

    def _seal(self, target: OpenSegment) -> None:
        """Seal a segment and forget it; if this raises, it is still open or already sealed."""
        self._forget(target)
        try:
            seal(self.state, target.segment, target.file, Contents.of(target.parts))
        except BaseException:
            try:
                sealed = is_sealed(self.state, target.segment)
            except StoreError:  # the index cannot be read: leave it to a recovery
                sealed = True
            if sealed:
                target.file.close()
            else:
                self._open[target.segment.pool.digest] = target
            raise
        target.file.close()

    def close(self) -> None:
        """Seal open segments. If the disk is full, the rows stay in the open file."""
        with self._lock:
            for target in self._open.values():
                with contextlib.suppress(StoreError, OSError):
                    if target.rows:
                        seal(self.state, target.segment, target.file, Contents.of(target.parts))
                    else:
                        abandon_segment(self.state, target.segment)
                target.file.close()
            self._open.clear()

    def abandon(self) -> None:
        """Remove open segments: the index that knew them was replaced."""
        with self._lock:
            for target in self._open.values():
                with contextlib.suppress(OSError):
                    self.state.staging.remove(target.segment.open_name)
                target.file.close()
            self._open.clear()

    def writes(self, segments: Collection[int]) -> bool:
        """Return whether any of these segments is open here."""
        with self._lock:
            return any(target.segment.id in segments for target in self._open.values())

    def seal_all(self) -> None:
        """Seal open segments, so that they can be evicted and read through Zarr."""
        with self._lock, disk_errors(self.state.path):
            for target in list(self._open.values()):
                if target.rows:
                    self._seal(target)


def committed(source: Transaction | sqlite3.Connection, segment: Segment) -> Contents:
    """Return the contents of a segment according to the index."""
    parts = []
    stride = segment.pool.stride
    for records, sizes in source.execute(
        "SELECT records, sizes FROM entries WHERE segment = ? ORDER BY slot", (segment.id,)
    ).fetchall():
        rows = np.frombuffer(records, RECORD)
        each = np.full(len(rows), stride) if sizes is None else np.frombuffer(sizes, np.int64)
        parts.append(Written(rows, each))
    return Contents.of(parts)


def enter_rows(transaction: Transaction, segment: Segment, slot: int, written: Written) -> int:
    """Add consecutive rows to the index; return the id of their entry."""
    sizes = written.sizes.tobytes() if segment.pool.codec else None
    cursor = transaction.execute(
        "INSERT INTO entries (segment, slot, records, sizes) VALUES (?, ?, ?, ?)",
        (segment.id, slot, written.records.tobytes(), sizes),
    )
    return int(cursor.lastrowid or 0)


def seal(state: State, segment: Segment, file: StagedFile, contents: Contents) -> None:
    """Turn an open segment into a shard of its pool: append the footer, publish the file.

    If this raises, the segment is still open with all its rows, unless an interrupt came after it
    was sealed.
    """
    try:
        file.finish(contents, segment.pool.slots, durable=state.durable)
        with state.transaction() as transaction:
            publish(state, transaction, segment, file)
    except BaseException:
        with contextlib.suppress(OSError):  # it may have been published before the failure
            if not is_sealed(state, segment):
                state.sealed.take_back(segment.key, file.path)
                os.ftruncate(file.fd, contents.end)
        raise


def publish(state: State, transaction: Transaction, segment: Segment, file: StagedFile) -> None:
    """Publish a finished segment, and enter it in the index as sealed."""
    size = whole_bytes(file.fd)
    lengthen(state, segment)
    state.sealed.publish(file.path, segment.key)
    enter_sealed(transaction, segment, size)
    transaction.then(lambda: state.staging.remove(segment.open_name))


def lengthen(state: State, segment: Segment) -> None:
    """Make the Zarr array of a pool long enough for a segment."""
    grow(state.path / POOLS / segment.pool.folder, segment.number + 1, segment.pool.slots)


def enter_sealed(transaction: Transaction, segment: Segment, size: int) -> None:
    """Enter a segment in the index as sealed, with its bytes on disk."""
    transaction.execute(
        "UPDATE segments SET sealed = 1, bytes = ? WHERE id = ?", (size, segment.id)
    )


def is_sealed(state: State, segment: Segment) -> bool:
    """Return whether the index has a segment as sealed, or no longer has it."""
    with state.index.reading() as connection:
        row = connection.execute(
            "SELECT sealed FROM segments WHERE id = ?", (segment.id,)
        ).fetchone()
    return row is None or bool(row[0])


def abandon_segment(state: State, segment: Segment) -> None:
    """Remove an open segment from the index, and its file."""
    with state.transaction() as transaction:
        delete_segments(state, transaction, [segment.id])
        state.staging.remove(segment.open_name)
