"""Recovery after a crash: adopts or removes segments of killed writers, rebuilds lost indexes."""

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .eviction import add_counts, delete_segments, finish_eviction, forget_pool
from .index import ENDINGS, Transaction, whole_bytes
from .pools import (
    EVICTED,
    Pool,
    describe,
    grow,
    is_pool_folder,
    is_temporary,
    read_pool,
    shard_name,
    shard_number,
)
from .segments import Contents, Written, footer, read_footer, write_all
from .state import OPEN, POOLS, Segment, State
from .writer import committed, disk_errors, enter_rows


@dataclass
class Recovered:
    """What a recovery did: segments adopted, orphaned files removed, rows whose file is gone.

    `notes` lists them one by one: kind, place, number of rows lost, and whether it is repaired.
    """

    adopted: int = 0
    removed: int = 0
    lost_rows: int = 0
    notes: list[tuple[str, str, int, bool]] = field(default_factory=list)

    def adopt(self, where: Path) -> None:
        """Record a segment that was adopted."""
        self.adopted += 1
        self.notes.append(("orphan adopted", str(where), 0, True))

    def leave(self, where: Path, error: OSError) -> None:
        """Record a segment that could not be adopted; it stays readable for the next recovery."""
        self.notes.append(("orphan left", f"{where}: {error.strerror}", 0, False))

    def remove(self, where: Path) -> None:
        """Record an orphaned file that was removed."""
        self.removed += 1
        self.notes.append(("orphan removed", str(where), 0, True))

    def lose(self, where: Path, rows: int) -> None:
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
    open_names = [name for name in _files(state.path / OPEN) if Segment.of_open_name(name)]
    sealed_names = {
        folder: _files(state.path / POOLS / folder) for folder in _listing(state.path / POOLS)
    }
    with disk_errors(state.path), state.transaction() as transaction:
        _enter_unknown_pools(state, transaction, sealed_names)
        _mend_pools(state, transaction, done)
    with disk_errors(state.path), state.transaction() as transaction:
        for name in open_names:
            _recover_open_file(state, transaction, name, done)
        for folder, names in sealed_names.items():
            _recover_sealed_files(state, transaction, folder, names, done)
        listed = {(folder, name) for folder, names in sealed_names.items() for name in names}
        _forget_fileless(state, transaction, listed, done)
        add_counts(
            transaction,
            adopted_orphans=done.adopted,
            removed_orphans=done.removed,
            corrupt_rows=done.lost_rows,
        )
    return done


def _listing(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _files(folder: Path) -> list[str]:
    return [name for name in _listing(folder) if not (folder / name).is_dir()]


def _enter_unknown_pools(
    state: State, transaction: Transaction, folders: dict[str, list[str]]
) -> None:
    """Add pools unknown to the index; remove the remains of half-created or half-removed pools."""
    known = {pool.folder for pool in state.pools.values()}
    for folder, names in folders.items():
        home = state.path / POOLS / folder
        if folder in known or not is_pool_folder(folder) or not home.is_dir():
            continue
        pool = read_pool(home)
        if pool is not None:
            state.enter_pool(transaction, pool)
        elif all(map(is_temporary, names)):
            with contextlib.suppress(OSError):
                for name in names:
                    (home / name).unlink()
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


def _segment_named(state: State, open_name: str) -> Segment | None:
    return next((s for s in state.segments.values() if s.open_name == open_name), None)


def _recover_open_file(state: State, transaction: Transaction, name: str, done: Recovered) -> None:
    path = state.path / OPEN / name
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # its writer is alive
        if not path.exists() or not os.path.samestat(os.fstat(fd), path.stat()):
            return  # sealed since it was listed
        segment = _segment_named(state, name)
        if segment is not None:
            contents = committed(transaction, segment)
            if len(contents.records) and os.fstat(fd).st_size >= contents.end:
                _adopt(state, transaction, segment, fd, contents, done)
                return
        path.unlink()
        done.remove(path)
        if segment is not None:
            delete_segments(state, transaction, [segment.id])
    finally:
        os.close(fd)


def _adopt(
    state: State,
    transaction: Transaction,
    segment: Segment,
    fd: int,
    contents: Contents,
    done: Recovered,
) -> None:
    """Truncate rows that were not committed, and seal the segment.

    If the footer cannot be written, the segment stays open and readable for the next recovery.
    """
    os.ftruncate(fd, contents.end)
    try:
        ending = footer(contents, segment.pool.slots)
        write_all(fd, [ending], contents.end, len(ending))
        if state.durable:
            os.fsync(fd)
        grow(state.sealed_path(segment).parent, segment.number + 1, segment.pool.slots)
    except OSError as error:
        os.ftruncate(fd, contents.end)
        done.leave(state.open_path(segment), error)
        return
    os.rename(state.open_path(segment), state.sealed_path(segment))
    _enter_sealed(state, transaction, segment)
    done.adopt(state.open_path(segment))


def _enter_sealed(state: State, transaction: Transaction, segment: Segment) -> None:
    path = state.sealed_path(segment)
    grow(path.parent, segment.number + 1, segment.pool.slots)
    transaction.execute(
        "UPDATE segments SET sealed = 1, bytes = ? WHERE id = ?", (whole_bytes(path), segment.id)
    )


def _recover_sealed_files(
    state: State, transaction: Transaction, folder: str, names: list[str], done: Recovered
) -> None:
    known = {s.number: s for s in state.segments.values() if s.pool.folder == folder}
    pool = next((p for p in state.pools.values() if p.folder == folder), None)
    if not is_pool_folder(folder):
        return
    for name in names:
        path = state.path / POOLS / folder / name
        number = shard_number(name)
        if number is None:
            _finish_leftover(state, transaction, known, path)
        elif number in known:
            sealed = transaction.execute(
                "SELECT sealed FROM segments WHERE id = ?", (known[number].id,)
            ).fetchone()
            # killed between rename and commit; or the seal failed, and was undone since the listing
            if sealed is not None and not sealed[0] and path.exists():
                _enter_sealed(state, transaction, known[number])
                done.adopt(path)
        elif pool is not None and path.exists():
            if _take_in(state, transaction, pool, number, path):
                done.adopt(path)
            else:
                done.remove(path)


def _finish_leftover(
    state: State, transaction: Transaction, known: dict[int, Segment], path: Path
) -> None:
    """Finish an eviction or remove a temporary file that a killed process left behind."""
    number = shard_number(path.name.removesuffix(EVICTED))
    if number is not None:
        segment = known.get(number)
        if segment is None or not finish_eviction(state, transaction, segment):
            path.unlink(missing_ok=True)
    elif is_temporary(path.name):
        path.unlink(missing_ok=True)


def _take_in(state: State, transaction: Transaction, pool: Pool, number: int, path: Path) -> bool:
    """Add a sealed segment to the index, or remove its file if damaged; True if added."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        contents = read_footer(fd, pool.slots)
        used = os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)
    stride = None if pool.codec else pool.stride
    if contents is None or (stride is not None and bool(np.any(contents.sizes != stride))):
        path.unlink()
        return False
    cursor = transaction.execute(
        "INSERT INTO segments (pool, number, sealed, rows, bytes, used) VALUES (?, ?, 1, ?, ?, ?)",
        (pool.id, number, len(contents.records), whole_bytes(path), min(used, time.time_ns())),
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
    state: State, transaction: Transaction, listed: set[tuple[str, str]], done: Recovered
) -> None:
    """Remove segments without a file from the index."""
    gone = []
    for segment in list(state.segments.values()):
        if (segment.pool.folder, shard_name(segment.number)) in listed:
            continue
        if state.sealed_path(segment).exists() or state.open_path(segment).exists():
            continue
        if finish_eviction(state, transaction, segment):
            continue
        gone.append(segment.id)
        lost = state.living_rows(segment)
        if lost:  # without rows it was only just begun, or all were put again since
            done.lose(state.sealed_path(segment), lost)
    delete_segments(state, transaction, gone)


def set_index_aside(index: Path, reason: str) -> Path:
    """Rename a damaged or foreign index out of the way, replacing one set aside earlier."""
    target = index.with_name(f"{index.name}.{reason}")
    for ending in ENDINGS:
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{index}{ending}", f"{target}{ending}")
    return target
