"""Full check of a store: rows against checksums, index against files, pools through Zarr."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .errors import StoreError
from .eviction import delete_segments, finish_eviction, forget_pool
from .footer import Contents, absent_slots, footer, index_bytes, read_footer, shard_index
from .index import ENDINGS, Transaction, gate_path, translated
from .keytable import SLOT_BITS, place_of
from .pools import Pool, Segment, describe, open_array, parse_key, read_pool
from .reader import drop_places
from .recovery import Recovered, recover
from .segmentfiles import EVICTED, SegmentFile, read_bytes
from .segments import RECORD, checksum, seeds_of
from .state import ASIDE, INDEX, OPEN, POOLS, State
from .writer import committed

_MOST_NAMED = 8  # at most this many slots are listed in a finding


@dataclass(frozen=True)
class Finding:
    """One problem found in a store.

    `kind` is one of ``corrupt row``, ``missing segment``, ``damaged footer``, ``damaged pool``,
    ``damaged index``, ``foreign index``, ``orphan adopted``, ``orphan left`` (its footer
    could not be written; its rows can be read), ``orphan removed`` and ``unknown file``. `rows`
    counts the rows lost, without those that have been put again since.
    """

    kind: str
    where: str
    rows: int = 0
    repaired: bool = False


@dataclass
class VerifyReport:
    """What `FeatureStore.verify` read and found.

    `segments`, `rows` and `bytes` (of rows) count what was read. `ok` is True if no problem was
    found or all have been repaired.
    """

    path: str
    segments: int = 0
    rows: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    ok: bool = True

    def found(self, kind: str, where: object, *, rows: int = 0, repaired: bool = False) -> None:
        """Add a finding to the report."""
        self.findings.append(Finding(kind, str(where), rows, repaired))
        self.ok = self.ok and repaired


def index_problem(state: State) -> str | None:
    """Return SQLite's description of what is wrong with the index, or None if it is sound."""
    try:
        with state.index.reading() as connection, translated(state.index.path):
            answer = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except StoreError as error:
        return str(error)
    return None if answer == "ok" else str(answer)


def verify(state: State, recovered: Recovered, *, repair: bool) -> VerifyReport:
    """Check a store whose index is sound; see `FeatureStore.verify`."""
    report = VerifyReport(str(state.path))
    if repair:
        recovered.notes.extend(recover(state).notes)
    for kind, where, rows, repaired in recovered.notes:
        report.found(kind, where, rows=rows, repaired=repaired)
    recovered.notes.clear()
    _check_asides(state, report, repair=repair)
    state.sync()
    for pool in list(state.pools.values()):
        _check_pool(state, pool, report, repair=repair)
    for segment in sorted(state.segments.values(), key=lambda s: (s.pool.id, s.number)):
        _check_segment(state, segment, report, repair=repair)
    with state.transaction():  # no process adds or removes pools meanwhile
        _check_files(state, report)
    return report


def _check_asides(state: State, report: VerifyReport, *, repair: bool) -> None:
    for reason in ASIDE:
        path = state.path / f"{INDEX}.{reason}"
        if path.exists():
            if repair:
                for ending in ENDINGS:
                    Path(f"{path}{ending}").unlink(missing_ok=True)
            report.found(f"{reason} index", path, repaired=repair)


def _check_pool(state: State, pool: Pool, report: VerifyReport, *, repair: bool) -> None:
    if _opens(state, pool):
        return
    with state.transaction() as transaction:  # no process adds or removes pools meanwhile
        segments = state.segments_of(pool)
        metadata = state.path / POOLS / pool.folder / "zarr.json"
        if pool.id not in state.pools or _opens(state, pool):
            return
        if not segments and not metadata.exists():  # its removal was interrupted
            forget_pool(state, transaction, pool)
            return
        if repair:
            describe(state.path / POOLS, pool, segments)
    report.found("damaged pool", metadata, repaired=repair)


def _opens(state: State, pool: Pool) -> bool:
    """Return whether zarr-python can open a pool and its metadata agrees with the index."""
    folder = state.path / POOLS / pool.folder
    try:
        array = open_array(folder)
    except StoreError:
        return False
    described = read_pool(folder)
    return (
        described is not None
        and (described.digest, described.slots, described.codec)
        == (pool.digest, pool.slots, pool.codec)
        and array.shape[1] == pool.length
    )


def _check_segment(state: State, segment: Segment, report: VerifyReport, *, repair: bool) -> None:
    with state.index.reading() as connection:
        row = connection.execute(
            "SELECT sealed, rows FROM segments WHERE id = ?", (segment.id,)
        ).fetchone()
        if row is None:
            return  # evicted since
        contents = committed(connection, segment)
        dropped = {
            found[0]
            for found in connection.execute(
                "SELECT slot FROM dropped WHERE segment = ?", (segment.id,)
            )
        }
    sealed, rows = row
    where, file = state.where(segment), state.sealed.open(segment.key)
    if not sealed and file is None:
        where = str(state.staging.path(segment.open_name))
        file = state.staging.open(segment.open_name)
    if file is None:
        _missing(state, segment, rows - len(dropped), report, repair=repair)
        return
    bad = dropped | _corrupt_slots(file, contents, dropped)
    report.segments += 1
    report.rows += len(contents.sizes) - len(dropped)
    report.bytes += contents.end
    marked = _marked_absent(file, segment, contents) if sealed else set()
    repaired = repair
    if bad - dropped or (sealed and marked != bad):
        with state.transaction() as transaction:  # no process evicts it meanwhile
            if _left(state, transaction, segment):
                return
            if repair:
                places = {place_of(segment.id, slot) for slot in bad - dropped}
                drop_places(state, transaction, places)
            if repair and sealed:
                repaired = _mark_absent(state, segment, contents, bad)
    told = sorted(bad - (marked or set()))
    if told:
        named = ", ".join(map(str, told[:_MOST_NAMED]))
        more = ", ..." if len(told) > _MOST_NAMED else ""
        lost = len(told) - _put_again(state, segment, contents, told)
        report.found("corrupt row", f"{where} slot {named}{more}", rows=lost, repaired=repaired)
    if marked is None:
        report.found("damaged footer", where, repaired=repaired)


def _missing(
    state: State, segment: Segment, rows: int, report: VerifyReport, *, repair: bool
) -> None:
    with state.transaction() as transaction:  # no process evicts or seals it meanwhile
        if _left(state, transaction, segment):
            return
        sealed_since = state.sealed.stat(segment.key) is not None
        lost = state.living_rows(segment)
        if repair and not sealed_since:
            delete_segments(state, transaction, [segment.id])
    if sealed_since:
        _check_segment(state, segment, report, repair=repair)
        return
    if rows:  # a segment without rows was only just begun
        report.found("missing segment", state.where(segment), rows=lost, repaired=repair)


def _put_again(state: State, segment: Segment, contents: Contents, slots: list[int]) -> int:
    """Return how many of the rows in `slots` have since been put into another segment."""
    size = RECORD.itemsize
    raw = contents.records[slots].tobytes()
    places, _ = state.find([raw[at : at + 16] for at in range(0, len(raw), size)])
    return int(np.count_nonzero((places >= 0) & (places >> SLOT_BITS != segment.id)))


def _left(state: State, transaction: Transaction, segment: Segment) -> bool:
    """Return whether a segment was evicted while it was being checked."""
    return segment.id not in state.segments or finish_eviction(state, transaction, segment)


def _corrupt_slots(file: SegmentFile, contents: Contents, dropped: set[int]) -> set[int]:
    halves = np.stack([contents.records["hi"], contents.records["lo"]], axis=1)
    seeds, checks = seeds_of(halves).tolist(), contents.records["check"].tolist()
    starts, sizes = contents.starts.tolist(), contents.sizes.tolist()
    bad = set()
    for slot, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        if slot in dropped:
            continue
        try:
            stored = read_bytes(file, size, start)
        except OSError:
            stored = memoryview(b"")
        row = stored[:-4]
        if len(stored) != size or checksum(row, seeds[slot]) != checks[slot]:
            bad.add(slot)
    return bad


def _marked_absent(file: SegmentFile, segment: Segment, contents: Contents) -> set[int] | None:
    """Return the slots that a sealed segment's footer marks as absent; None if it is damaged."""
    slots = segment.pool.slots
    known = read_footer(file, slots)
    marked = absent_slots(file, len(contents.sizes), slots)
    if known is None or marked is None or not np.array_equal(known.records, contents.records):
        return None
    size = index_bytes(slots)
    found = read_bytes(file, size, max(0, file.size - size))  # it may have just been emptied
    return marked if found == shard_index(contents, slots, marked) else None


def _mark_absent(state: State, segment: Segment, contents: Contents, absent: set[int]) -> bool:
    """Rewrite a sealed segment's footer so that Zarr treats its corrupt rows as empty.

    Returns False if that fails. The rows can be read all the same.
    """
    slots = segment.pool.slots
    table = footer(contents, slots)[: -index_bytes(slots)]
    ending = table + shard_index(contents, slots, absent)
    try:
        state.sealed.replace_ending(segment.key, contents.end, ending)
    except OSError:
        return False
    return True


def _check_files(state: State, report: VerifyReport) -> None:
    """Report files that do not belong to the store."""
    aside = [f"{INDEX}.{reason}" for reason in ASIDE]
    known = {"lock", gate_path(state.index.path).name, OPEN, POOLS}
    known |= {name + ending for name in (INDEX, *aside) for ending in ENDINGS}
    strange = [state.path / name for name in os.listdir(state.path) if name not in known]
    pools = {pool.folder: pool for pool in state.pools.values()}
    strange += [
        state.path / POOLS / name
        for name in os.listdir(state.path / POOLS)
        if name != "zarr.json" and name not in pools
    ]
    strange += [
        state.path / OPEN / name
        for name in os.listdir(state.path / OPEN)
        if Segment.of_open_name(name) is None
    ]
    for folder in pools:
        home = state.path / POOLS / folder
        strange += [
            home / name
            for name in (os.listdir(home) if home.exists() else [])
            if name != "zarr.json" and parse_key(f"{folder}/{name.removesuffix(EVICTED)}") is None
        ]
    for path in strange:
        report.found("unknown file", path)
