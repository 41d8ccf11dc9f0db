"""Contents and counters of a store, as plain data."""

import json
from dataclasses import dataclass, field

import numpy as np

from .disk import real_bytes
from .eviction import house_bytes
from .keytable import SLOT_BITS
from .state import State


@dataclass(frozen=True)
class PoolStat:
    """One pool: its kind of row, the number of rows, and the bytes on disk."""

    name: str
    folder: str
    recipe: dict[str, str]
    length: int
    dtype: str
    codec: str
    rows: int
    bytes: int
    segments: int


@dataclass(frozen=True)
class StoreStat:
    """A store: rows, bytes on disk (everything, index and log included), limit, counters.

    Counters cover the store's whole lifetime and all processes. `hits` and `misses` count rows
    requested with `get` and `get_many`; a killed process loses what it counted in its last
    second. `corrupt_rows` counts rows dropped because they failed their checksum or their file
    was gone; orphans are segments that killed processes left behind.
    """

    path: str
    rows: int
    bytes: int
    limit: int | None
    pinned_segments: int
    pools: list[PoolStat] = field(default_factory=list)
    hits: int = 0
    misses: int = 0
    evicted_segments: int = 0
    evicted_bytes: int = 0
    corrupt_rows: int = 0
    adopted_orphans: int = 0
    removed_orphans: int = 0


COUNTERS = (
    "hits",
    "misses",
    "evicted_segments",
    "evicted_bytes",
    "corrupt_rows",
    "adopted_orphans",
    "removed_orphans",
)


def stat(state: State) -> StoreStat:
    """Collect a store's statistics: counts from the index, bytes from the files."""
    state.flush()
    with state.index.reading() as connection:
        pools = connection.execute(
            "SELECT id, name, folder, recipe, length, dtype, codec FROM pools ORDER BY folder"
        ).fetchall()
        segments = connection.execute("SELECT id, pool FROM segments").fetchall()
        pinned = connection.execute("SELECT count(DISTINCT segment) FROM pins").fetchone()[0]
        counters = dict(connection.execute("SELECT name, value FROM counters").fetchall())
    state.sync()
    with state.table_lock:  # a row that two processes put at once is in two segments
        found, counts = np.unique(state.table.places() >> SLOT_BITS, return_counts=True)
    rows = dict(zip(found.tolist(), counts.tolist(), strict=True))
    listed = []
    for pool, name, folder, recipe, length, dtype, codec in pools:
        mine = [segment for segment, owner in segments if owner == pool]
        listed.append(
            PoolStat(
                name=name,
                folder=folder,
                recipe=json.loads(recipe),
                length=length,
                dtype=dtype,
                codec=codec,
                rows=sum(rows.get(segment, 0) for segment in mine),
                bytes=sum(_segment_bytes(state, segment) for segment in mine),
                segments=len(mine),
            )
        )
    return StoreStat(
        path=str(state.path),
        rows=sum(pool.rows for pool in listed),
        bytes=sum(pool.bytes for pool in listed) + house_bytes(state),
        limit=state.limit,
        pinned_segments=pinned,
        pools=listed,
        **{name: counters.get(name, 0) for name in COUNTERS},
    )


def _segment_bytes(state: State, segment_id: int) -> int:
    segment = state.segments.get(segment_id)
    if segment is None:
        return 0
    sealed = state.sealed.stat(segment.key)
    return sealed.occupied if sealed else real_bytes(state.staging.path(segment.open_name))
