"""Recovery after a crash: adopts or removes segments of killed writers, rebuilds lost indexes."""

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .disk import disk_errors, list_folder, remove_unfinished
from .eviction import delete_segments, finish_eviction, forget_pool
from .footer import Contents, read_footer
from .index import ENDINGS, Transaction
from .pools import Segment, describe, is_pool_folder, parse_key, read_pool
from .segmentfiles import SegmentFile, SegmentListing
from .segments import Written
from .staging import StagedFile
from .state import POOLS, State
from .usage import add_counts
from .writer import committed, enter_rows, enter_sealed, is_sealed, lengthen, publish


@dataclass
class Recovered:
    """What a recovery did: segments adopted, orphaned files removed, rows whose file is gone.

    `notes` lists them one by one: kind, place, number of rows lost, and whether it is repaired.
    """

    adopted: int = 0
    removed: int = 0
    lost_rows: int = 0
    notes: list[tuple[str, str, int, bool]] = field(default_factory=list)

    def adopt(self, where: object) -> None:
        """Record a segment that was adopted."""
        self.adopted += 1
        self.notes.append(("orphan adopted", str(where), 0, True))

    def leave(self, where: object, error: OSError) -> None:
        """Record a segment that could not be adopted; it stays readable for the next recovery."""
        self.notes.append(("orphan left", f"{where}: {error.strerror}", 0, False))

    def remove(self, where: object) -> None:
        """Record an orphaned file that was removed."""
        self.removed += 1
        self.notes.append(("orphan removed", str(where), 0, True))

    def lose(self, where: object, rows: int) -> None:
        """Record a segment whose file is gone."""
        self.lost_rows += rows
        self.notes.append(("missing segment", str(where), rows, True))


def recover(state: State) -> Recovered:
    """Bring the index and the files into agreement. Safe while others read and write.

    Open segments without a live writer are truncated after their last committed row and sealed,
    or removed if they have no committed row. Sealed segments that the index does not know are
    added to it from their own key table, or removed if that is damaged. Segments without a file
    are removed from the index. Files and folders whose names the store never uses are not touched.
    """
    done = Recovered()
    # listed before the index is read, which then knows what is sealed or begun meanwhile
    open_names = [name for name in state.staging.names() if Segment.of_open_name(name)]
    listing = state.sealed.list()
    with disk_errors(state.path), state.transaction() as transaction:
        _enter_unknown_pools(state, transaction)
        _mend_pools(state, transaction, done)
    with disk_errors(state.path), state.transaction() as transaction:
        for name in open_names:
            _recover_open_file(state, transaction, name, done)
        _recover_sealed_files(state, transaction, listing, done)
        _forget_fileless(state, transaction, listing, done)
        add_counts(
            transaction,
            adopted_orphans=done.adopted,
            removed_orphans=done.removed,
            corrupt_rows=done.lost_rows,
        )
    return done


def _enter_unknown_pools(state: State, transaction: Transaction) -> None:
    """Add pools unknown to the index; remove the remains of half-created or half-removed pools."""
    known = {pool.folder for pool in state.pools.values()}
    for folder in filter(is_pool_folder, list_folder(state.path / POOLS)):
        home = state.path / POOLS / folder
        remove_unfinished(home)
        if folder in known or not home.is_dir():
            continue
        pool = read_pool(home)
        if pool is not None:
            state.enter_pool(transaction, pool)
        else:
            with contextlib.suppress(OSError):  # it is not empty
                home.rmdir()


def _mend_pools(state: State, transaction: Transaction, done: Recovered) -> None:
    """Rewrite missing or damaged pool metadata; forget pools with neither metadata nor segments."""
    for pool in list(state.pools.values()):
        home = state.path / POOLS / pool.folder
        if read_pool(home) is not None:
            continue
        if state.segments_of(pool) or (home / "zarr.json").exists():
            describe(state.path / POOLS, pool, state.segments_of(pool))
            done.notes.append(("damaged pool", str(home / "zarr.json"), 0, True))
        else:
            forget_pool(state, transaction, pool)


def _recover_open_file(state: State, transaction: Transaction, name: str, done: Recovered) -> None:
    file = state.staging.claim(name)
    if file is None:
        return
    with contextlib.closing(file):
        segment = next((s for s in state.segments.values() if s.open_name == name), None)
        if segment is not None and is_sealed(state, segment):  # published as a copy
            state.staging.remove(name)
            return
        if segment is not None:
            contents = committed(transaction, segment)
            if not len(contents.records):
                contents = _enter_lent(state, transaction, segment, state.staging.open(name))
            if len(contents.records) and file.size >= contents.end:
                _adopt(state, transaction, segment, file, contents, done)
                return
        state.staging.remove(name)
        done.remove(file.path)
        if segment is not None:
            delete_segments(state, transaction, [segment.id])


def _enter_lent(
    state: State, transaction: Transaction, segment: Segment, file: SegmentFile | None
) -> Contents:
    """Enter the rows of a lent segment that its writer has finished; return what there are."""
    found = None if file is None else read_footer(file, segment.pool.slots)
    if found is None or not len(found.records):
        return Contents()
    transaction.execute(
        "UPDATE segments SET rows = ? WHERE id = ?", (len(found.records), segment.id)
    )
    written = Written(found.records, found.sizes)
    entry = enter_rows(transaction, segment, 0, written)
    transaction.then(lambda: state.entered(entry, segment, 0, written.records))
    return found


def _adopt(
    state: State,
    transaction: Transaction,
    segment: Segment,
    file: StagedFile,
    contents: Contents,
    done: Recovered,
) -> None:
    """Truncate rows that were not committed, and seal the segment.

    If that fails, the segment stays open and readable for the next recovery.
    """
    try:
        file.finish(contents, segment.pool.slots, durable=state.durable)
        publish(state, transaction, segment, file)
    except OSError as error:
        state.sealed.take_back(segment.key, file.path)
        os.ftruncate(file.fd, contents.end)
        done.leave(file.path, error)
        return
    done.adopt(file.path)


def _recover_sealed_files(
    state: State, transaction: Transaction, listing: SegmentListing, done: Recovered
) -> None:
    pools = {pool.folder: pool for pool in state.pools.values()}
    segments = {segment.key: segment for segment in state.segments.values()}
    for key in listing.deleted:
        segment = segments.get(key)
        if segment is None or not finish_eviction(state, transaction, segment):
            state.sealed.forget(key)
    for folder, number, key in sorted(map(_in_order, listing.published)):
        segment = segments.get(key)
        if segment is not None and is_sealed(state, segment):
            continue
        sealed = state.sealed.stat(key)
        if sealed is None:  # sealing failed, and was undone since the listing
            continue
        where = f"{state.sealed.place}/{key}"
        if segment is not None:  # killed between publishing and commit
            if not len(committed(transaction, segment).records):
                _enter_lent(state, transaction, segment, state.sealed.open(key))
            lengthen(state, segment)
            enter_sealed(transaction, segment, sealed.whole)
            done.adopt(where)
        elif folder in pools:
            if _take_in(state, transaction, Segment(0, pools[folder], number)):
                done.adopt(where)
            else:
                done.remove(where)


def _in_order(key: str) -> tuple[str, int, str]:
    parsed = parse_key(key)
    if parsed is None:
        raise ValueError(f"{key!r} is no segment's key")
    return *parsed, key


def _take_in(state: State, transaction: Transaction, found: Segment) -> bool:
    """Add a sealed segment to the index, or remove it if it is damaged; True if added."""
    pool, number = found.pool, found.number
    sealed, file = state.sealed.stat(found.key), state.sealed.open(found.key)
    if sealed is None or file is None:
        return False
    contents = read_footer(file, pool.slots)
    stride = None if pool.codec else pool.stride
    if contents is None or (stride is not None and bool(np.any(contents.sizes != stride))):
        state.sealed.delete(found.key)
        state.sealed.forget(found.key)
        return False
    cursor = transaction.execute(
        "INSERT INTO segments (pool, number, sealed, rows, bytes, used) VALUES (?, ?, 1, ?, ?, ?)",
        (
            pool.id,
            number,
            len(contents.records),
            sealed.whole,
            min(sealed.modified_ns, time.time_ns()),
        ),
    )
    segment = Segment(int(cursor.lastrowid or 0), pool, number)
    written = Written(contents.records, contents.sizes)
    entry = enter_rows(transaction, segment, 0, written)
    transaction.execute(
        "UPDATE pools SET next_number = max(next_number, ?) WHERE id = ?", (number + 1, pool.id)
    )

    def taken() -> None:
        state.segments[segment.id] = segment
        state.entered(entry, segment, 0, written.records)

    transaction.then(taken)
    return True


def _forget_fileless(
    state: State, transaction: Transaction, listing: SegmentListing, done: Recovered
) -> None:
    """Remove segments without a file from the index."""
    gone = []
    for segment in list(state.segments.values()):
        if segment.key in listing.published or state.has_file(segment):
            continue
        if finish_eviction(state, transaction, segment):
            continue
        gone.append(segment.id)
        lost = state.living_rows(segment)
        if lost:  # without rows it was only just begun, or all were put again since
            done.lose(state.where(segment), lost)
    delete_segments(state, transaction, gone)


def set_index_aside(index: Path, reason: str) -> Path:
    """Rename a damaged or foreign index out of the way, replacing one set aside earlier."""
    target = index.with_name(f"{index.name}.{reason}")
    for ending in ENDINGS:
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{index}{ending}", f"{target}{ending}")
    return target
