"""The store's limit: what it takes on disk, and which segments are evicted to stay within it."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from .disk import real_bytes
from .errors import StoreError
from .footer import footer_bytes
from .index import ENDINGS, Transaction
from .keys import PoolSpec
from .pins import end_dead_leases
from .pools import COMPRESSOR_BYTES, Pool, Segment, slots_for
from .segments import RECORD
from .staging import StagedFile
from .state import ASIDE, INDEX, OPEN, POOLS, State
from .usage import add_counts, next_use

_BLOCK = 4096
_PAGES_OF_ONE = 24  # index pages one transaction may change; the log may outgrow its bound by these


@dataclass(frozen=True)
class Freed:
    """What an eviction removed."""

    segments: int = 0
    rows: int = 0
    bytes: int = 0

    def __add__(self, other: "Freed") -> "Freed":
        return Freed(
            self.segments + other.segments, self.rows + other.rows, self.bytes + other.bytes
        )


@dataclass(frozen=True)
class Cleared:
    """What `clear` removed, and how many segments stayed: pinned, or being written."""

    freed: Freed
    kept_segments: int


@dataclass(frozen=True)
class Reserved:
    """A segment to be written: its open file, locked by us, and how many rows it may hold."""

    segment: Segment
    file: StagedFile
    rows: int


def store_bytes(state: State, source: Transaction) -> int:
    """Return the bytes that the store takes on disk, including what is reserved.

    Open segments and the write-ahead log count with the size that they may grow to.
    """
    segments: int = source.execute("SELECT coalesce(sum(bytes), 0) FROM segments").fetchone()[0]
    log = state.index.path.with_name(state.index.path.name + "-wal")
    log_growth = max(0, (state.log_pages + _PAGES_OF_ONE) * _BLOCK - real_bytes(log))
    return segments + house_bytes(state) + log_growth


def house_bytes(state: State) -> int:
    """Return the bytes of everything but segments: index, metadata and folders."""
    pools = state.path / POOLS
    places = [state.path, state.path / "lock", state.path / OPEN, pools, pools / "zarr.json"]
    places += [state.path / f"{INDEX}.{reason}{end}" for reason in ASIDE for end in ENDINGS]
    for pool in list(state.pools.values()):
        places += [pools / pool.folder, pools / pool.folder / "zarr.json"]
    return sum(map(real_bytes, places)) + state.index.real_bytes()


def reserve(state: State, spec: PoolSpec, codec: str, most: int | None = None) -> Reserved | None:
    """Make room for one more segment and open it, locked; return None if there is no room.

    The whole segment is reserved, so that the limit holds whatever others write meanwhile. `most`
    makes it smaller: the largest number of rows that it will hold.

    Raises
    ------
    OSError, StoreFull
        The segment cannot be created, or the disk is full. The index is unchanged.
    """
    made: list[StagedFile] = []
    try:
        with state.transaction() as transaction:
            pool = state.pool_for(transaction, spec, codec)
            rows = min(pool.slots, slots_for(pool.row_bytes, state.limit), most or pool.slots)
            size = _most_bytes(pool, rows)
            room = size + _most_index_bytes(pool, rows)
            if state.limit is not None:
                freed = make_room(state, transaction, state.limit - room)
                if freed is None:
                    return None
            segment = _enter_segment(state, transaction, pool, room)
            made.append(state.staging.create(segment.open_name, size))
            transaction.then(lambda: state.segments.__setitem__(segment.id, segment))
    except BaseException:
        for file in made:
            file.path.unlink()
            file.close()
        raise
    return Reserved(segment, made[0], rows)


def _enter_segment(state: State, transaction: Transaction, pool: Pool, size: int) -> Segment:
    while True:
        number = transaction.execute(
            "UPDATE pools SET next_number = next_number + 1 WHERE id = ? RETURNING next_number",
            (pool.id,),
        ).fetchone()[0]
        segment = Segment(0, pool, number - 1)
        # a process whose index was replaced meanwhile may still be using the number
        if not state.has_file(segment):
            break
    cursor = transaction.execute(
        "INSERT INTO segments (pool, number, bytes, used) VALUES (?, ?, ?, ?)",
        (pool.id, segment.number, size, next_use(transaction)),
    )
    return Segment(int(cursor.lastrowid or 0), pool, segment.number)


def _most_bytes(pool: Pool, rows: int) -> int:
    stride = pool.stride + (COMPRESSOR_BYTES if pool.codec else 0)
    whole = rows * stride + footer_bytes(rows, pool.slots)
    return -(-whole // _BLOCK) * _BLOCK


def _most_index_bytes(pool: Pool, rows: int) -> int:
    """Return how many bytes a segment's rows may add to the index; many if rows are short."""
    size_bytes = 8 if pool.codec else 0
    return -(-rows * (RECORD.itemsize + size_bytes) // _BLOCK) * _BLOCK


def make_room(state: State, transaction: Transaction, target: int) -> Freed | None:
    """Evict least recently used segments until the store takes at most `target` bytes.

    Returns what was evicted, or None, with nothing evicted, if that would not free enough.
    Segments that are pinned or being written stay.
    """
    excess = store_bytes(state, transaction) - target
    if excess <= 0:
        return Freed()
    end_dead_leases(transaction)
    victims = []
    for victim in _evictable(transaction):
        victims.append(victim)
        excess -= victim[2]
        if excess <= 0:
            return evict_segments(state, transaction, victims)
    return None


def make_all_room(state: State, transaction: Transaction, target: int) -> Freed:
    """Evict until the store takes at most `target` bytes or nothing more can be evicted."""
    excess = store_bytes(state, transaction) - target
    end_dead_leases(transaction)
    victims = []
    for victim in _evictable(transaction):
        if excess <= 0:
            break
        victims.append(victim)
        excess -= victim[2]
    return evict_segments(state, transaction, victims)


def _evictable(transaction: Transaction) -> list[tuple[int, int, int]]:
    """Return (segment, rows, bytes) of all evictable segments, least recently used first."""
    return transaction.execute(
        "SELECT id, rows, bytes FROM segments "
        "WHERE sealed AND id NOT IN (SELECT segment FROM pins) ORDER BY used, id"
    ).fetchall()


def evict_segments(
    state: State, transaction: Transaction, victims: list[tuple[int, int, int]]
) -> Freed:
    """Remove segments and count them as evicted.

    Their files are deleted before the commit, so that the bytes are free before anyone can reserve
    them, even on a full disk; until they are forgotten, a recovery can tell that nothing was lost.
    If the transaction fails, segments already deleted count as evicted.
    """
    freed = Freed()
    leaving = []
    transaction.otherwise(lambda: _keep_in_step(state, victims))
    for segment_id, rows, size in victims:
        key = state.segments[segment_id].key
        state.sealed.delete(key)
        leaving.append(key)
        freed += Freed(1, rows, size)

    def forget() -> None:
        for key in leaving:
            state.sealed.forget(key)

    delete_segments(state, transaction, [victim[0] for victim in victims])
    if freed.segments:
        add_counts(transaction, evicted_segments=freed.segments, evicted_bytes=freed.bytes)
        transaction.then(forget)
    return freed


def _keep_in_step(state: State, victims: list[tuple[int, int, int]]) -> None:
    """Remove those segments from the index that a failed eviction deleted."""
    # if this fails too, a recovery finds what was deleted, as after a kill
    with contextlib.suppress(StoreError, OSError), state.transaction() as transaction:
        for segment_id, _, size in victims:
            segment = state.segments.get(segment_id)
            if segment is not None and finish_eviction(state, transaction, segment):
                add_counts(transaction, evicted_segments=1, evicted_bytes=size)


def finish_eviction(state: State, transaction: Transaction, segment: Segment) -> bool:
    """Finish an interrupted eviction; return False if the segment was not being evicted."""
    if state.has_file(segment) or not state.sealed.deleted(segment.key):
        return False
    delete_segments(state, transaction, [segment.id])
    transaction.then(lambda: state.sealed.forget(segment.key))
    return True


def delete_segments(state: State, transaction: Transaction, segments: list[int]) -> None:
    """Remove segments from the index; the caller takes care of their files."""
    ids = [(segment,) for segment in segments]
    for table in ("entries", "dropped", "pins"):
        transaction.executemany(f"DELETE FROM {table} WHERE segment = ?", ids)
    transaction.executemany("DELETE FROM segments WHERE id = ?", ids)
    transaction.then(lambda: state.forget_segments(segments))


def clear(state: State, recipe: Mapping[str, str] | None) -> Cleared:
    """Remove the pools whose recipe contains these items; see `FeatureStore.clear`."""
    wanted = dict(recipe or {}).items()
    with state.transaction() as transaction:
        end_dead_leases(transaction)
        pools = [p for p in state.pools.values() if wanted <= p.recipe.items()]
        mine = {s.id for s in state.segments.values() if s.pool in pools}
        victims = [victim for victim in _evictable(transaction) if victim[0] in mine]
        freed = evict_segments(state, transaction, victims)
        if recipe is None:
            transaction.execute("DELETE FROM files")
    with state.transaction() as transaction:
        filled = {segment.pool.id for segment in state.segments.values()}
        for pool in pools:
            if pool.id in state.pools and pool.id not in filled:
                _remove_pool(state, transaction, pool)
    state.index.vacuum()
    return Cleared(freed, len(mine) - freed.segments)


def _remove_pool(state: State, transaction: Transaction, pool: Pool) -> None:
    folder = state.path / POOLS / pool.folder
    with contextlib.suppress(OSError):  # a folder with foreign files stays
        (folder / "zarr.json").unlink(missing_ok=True)
        folder.rmdir()
    forget_pool(state, transaction, pool)


def forget_pool(state: State, transaction: Transaction, pool: Pool) -> None:
    """Remove a pool without segments from the index; its segment numbers are not reused."""
    transaction.execute(
        "INSERT OR REPLACE INTO meta SELECT 'next ' || folder, next_number FROM pools WHERE id = ?",
        (pool.id,),
    )
    transaction.execute("DELETE FROM pools WHERE id = ?", (pool.id,))

    def forget() -> None:
        state.pools.pop(pool.id, None)

    transaction.then(forget)
