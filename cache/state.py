"""One process's view of an open store: index in memory, open files, counts not yet saved."""

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .disk import sync_folder, write_json
from .errors import StoreBusy, StoreError, StoreFull
from .index import Index, Transaction
from .keys import PoolSpec
from .keytable import SLOT_BITS, KeyTable, place_of
from .openfiles import OpenFiles
from .pools import Pool, Segment, array_metadata, describe, pool_folder, read_pool, slots_for
from .segmentfiles import SegmentFiles
from .segments import RECORD
from .staging import Staging
from .usage import Usage

INDEX = "index.sqlite"
ASIDE = ("foreign", "damaged")  # suffixes of an index that was moved out of the way
POOLS = "pools"
OPEN = "open"
HELPERS = max(2, min(4, os.cpu_count() or 1))
_FLUSH_S = 1.0  # how long a process that only reads may delay saving its uses and counts
_LARGEST_LOG = 1000  # pages


class Keeper(Protocol):
    """Protocol of a pin: protects segments from eviction while this process is alive."""

    def attach(self, state: "State") -> None:
        """Begin a new lease in an index that was opened in place of another."""

    def renew(self, state: "State", transaction: Transaction) -> None:
        """Renew the lease when it is due; called in every transaction."""

    def keep(self, transaction: Transaction, segment: int, keys: Sequence[bytes]) -> None:
        """Pin a segment if rows just added to it are among those that the run needs."""


class State:
    """The index in memory, synced with the database, and what the reader and the writer share.

    Created when a store is opened, and anew after a fork or when the index file was replaced, so
    that nothing of the old state is used any more.

    Parameters
    ----------
    path
        The store's folder.
    durable
        Wait for the disk on each commit.
    store_id
        The store's id, for an index that has to be created; None for a new random id.
    sealed
        Where sealed segments are kept.
    """

    def __init__(
        self,
        path: Path,
        *,
        durable: bool,
        store_id: str | None,
        sealed: SegmentFiles,
    ) -> None:
        self.path = path
        self.limit: int | None = None  # the store's; updated by `sync`
        self.keeps_limit = False  # the index has an entry for the limit, even if it is None
        self.durable = durable
        self.log_pages = _log_pages(None)
        self.index = Index(path / INDEX, durable=durable, store_id=store_id)
        self.index.bound_log(self.log_pages)
        self.table = KeyTable()
        self.table_lock = threading.Lock()
        self.pins: list[Keeper] = []
        self.pools: dict[int, Pool] = {}
        self.segments: dict[int, Segment] = {}
        self.helpers = ThreadPoolExecutor(HELPERS, "lpipstore")
        self.sealed = sealed
        self.staging = Staging(path / OPEN)
        self.files = OpenFiles(self.sealed, self.staging, self.index)
        self.usage = Usage()
        self._version = -1
        self._last_entry = 0
        self._last_dropped = 0

    # -- sync with the database -----------------------------------------------------------------

    def sync(self) -> None:
        """Load what other processes have committed, evicted and dropped since the last call."""
        version = self.index.version()
        if version != self._version:
            with self.index.reading() as connection:
                self._pull(connection)
            self._version = version

    @contextlib.contextmanager
    def transaction(self, *, patience: float | None = None) -> Iterator[Transaction]:
        """Hold the store's write lock, synced with the database; see `Index.transaction`."""
        try:
            with self.index.transaction(patience=patience) as transaction:
                version = self.index.version()
                if version != self._version:
                    self._pull(transaction)
                    self._version = version
                for pin in self.pins:
                    pin.renew(self, transaction)
                self.usage.save(transaction)
                yield transaction
        except BaseException:
            self._version = -1  # an interrupt may come after the commit: load it next time
            raise

    def _pull(self, source: Any) -> None:  # noqa: ANN401 - a connection or a transaction
        rows = source.execute("SELECT id, pool, number FROM segments").fetchall()
        self._pull_limit(source)
        self._pull_pools(source)
        self.forget_segments(self.segments.keys() - {row[0] for row in rows})
        for segment, pool, number in rows:
            if segment not in self.segments:
                self.segments[segment] = Segment(segment, self.pools[pool], number)
        entries = source.execute(
            "SELECT id, segment, slot, records FROM entries WHERE id > ? ORDER BY id",
            (self._last_entry,),
        ).fetchall()
        dropped = source.execute(
            "SELECT id, segment, slot FROM dropped WHERE id > ? ORDER BY id", (self._last_dropped,)
        ).fetchall()
        parts = [
            (segment, slot, np.frombuffer(records, RECORD)) for _, segment, slot, records in entries
        ]
        with self.table_lock:
            self.table.add_all(parts)
            self.table.discard_places({place_of(segment, slot) for _, segment, slot in dropped})
        if entries:
            self._last_entry = entries[-1][0]
        if dropped:
            self._last_dropped = dropped[-1][0]

    def _pull_limit(self, source: Any) -> None:  # noqa: ANN401
        row = source.execute("SELECT value FROM meta WHERE name = 'limit'").fetchone()
        if row is not None:
            self._take_limit(int(row[0]) if row[0] else None)

    def keep_limit(self, transaction: Transaction, limit: int | None) -> None:
        """Save the store's limit in the index; other processes load it at their next sync.

        In this process it applies at once, even within the transaction.
        """
        transaction.execute(
            "INSERT OR REPLACE INTO meta VALUES ('limit', ?)",
            ("" if limit is None else str(limit),),
        )
        self._take_limit(limit)

    def _take_limit(self, limit: int | None) -> None:
        self.keeps_limit = True
        if limit != self.limit:
            self.limit = limit
            self.log_pages = _log_pages(limit)
            self.index.bound_log(self.log_pages)

    def _pull_pools(self, source: Any) -> None:  # noqa: ANN401
        rows = source.execute("SELECT id FROM pools").fetchall()
        if {row[0] for row in rows} == self.pools.keys():
            return
        listed = source.execute(f"SELECT {_POOL_COLUMNS} FROM pools").fetchall()
        before = self.pools
        self.pools = {row[0]: before.get(row[0]) or _pool_of(row) for row in listed}

    # -- pools ----------------------------------------------------------------------------------

    def pool_for(self, transaction: Transaction, spec: PoolSpec, codec: str) -> Pool:
        """Return the pool for a kind of row, creating it if there is none.

        Raises
        ------
        OSError
            The pool's folder cannot be created.
        """
        folder = pool_folder(spec, codec)
        for pool in self.pools.values():
            if pool.folder == folder:
                if read_pool(self.path / POOLS / folder) is None:  # its removal was interrupted
                    describe(self.path / POOLS, pool, self.segments_of(pool))
                return pool
        slots = slots_for(spec.row_bytes, self.limit)
        home = self.path / POOLS / folder
        home.mkdir(exist_ok=True)
        write_json(home / "zarr.json", array_metadata(spec, codec, slots))
        if self.durable:
            sync_folder(home)
            sync_folder(home.parent)
        return self.enter_pool(
            transaction,
            Pool.of(folder, spec, codec, slots),
        )

    def enter_pool(self, transaction: Transaction, pool: Pool) -> Pool:
        """Add a pool to the index; this process knows it once the transaction is committed."""
        cursor = transaction.execute(
            f"INSERT INTO pools ({_POOL_COLUMNS}, next_number) "
            "VALUES (NULL, ?1, ?, ?, ?, ?, ?, ?, ?, "
            "coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'next ' || ?1), 0))",
            (
                pool.folder,
                pool.name,
                pool.digest,
                pool.length,
                pool.dtype,
                json.dumps(pool.recipe, sort_keys=True),
                pool.codec,
                pool.slots,
            ),
        )
        made = Pool(**{**_fields(pool), "id": int(cursor.lastrowid or 0)})
        transaction.then(lambda: self.pools.__setitem__(made.id, made))
        return made

    # -- rows and segments in memory ------------------------------------------------------------

    def entered(self, entry: int, segment: Segment, slot: int, records: NDArray[np.void]) -> None:
        """Add rows that this process has just committed to the index in memory."""
        with self.table_lock:
            self.table.add(segment.id, slot, records)
        self.files.grown(segment)
        self._last_entry = max(self._last_entry, entry)

    def forget_segments(self, segments: Iterable[int]) -> None:
        """Forget segments that are gone."""
        gone = set(segments)
        with self.table_lock:
            self.table.discard_segments(gone)
        for segment in gone:
            self.segments.pop(segment, None)
        self.files.forget(gone)
        self.usage.forget(gone)

    def segments_of(self, pool: Pool) -> int:
        """Return the number of segments that the array of a pool must have room for."""
        numbers = [s.number for s in list(self.segments.values()) if s.pool.id == pool.id]
        return max(numbers, default=-1) + 1

    def find(self, keys: list[bytes]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Return the place (-1 if absent) and the checksum of each key."""
        with self.table_lock:
            return self.table.find(keys)

    def living_rows(self, segment: Segment) -> int:
        """Return how many rows of a segment are current: not dropped, not put again elsewhere."""
        with self.table_lock:
            return int(np.count_nonzero(self.table.places() >> SLOT_BITS == segment.id))

    # -- files ----------------------------------------------------------------------------------

    def has_file(self, segment: Segment) -> bool:
        """Return whether the file of a segment is there, sealed or not."""
        return self.sealed.stat(segment.key) is not None or self.staging.exists(segment.open_name)

    def where(self, segment: Segment) -> str:
        """Return where a segment is once it is sealed, for messages."""
        return f"{self.sealed.place}/{segment.key}"

    # -- uses and counts ------------------------------------------------------------------------

    def flush(self, *, now: bool = True) -> None:
        """Save uses and counts to the index if `now` is set or the last save was long enough ago.

        If the disk is full or, without `now`, others are writing, they stay pending and no error
        is raised.
        """
        if self.usage.is_due(0.0 if now else _FLUSH_S):
            accepted = (StoreFull,) if now else (StoreFull, StoreBusy)
            patience = None if now else 0.0
            with contextlib.suppress(*accepted), self.transaction(patience=patience):
                pass

    def close(self) -> None:
        """Save the counts and release everything."""
        with contextlib.suppress(StoreError):
            self.flush()
        self.helpers.shutdown()
        self.files.clear()
        self.index.close()


_POOL_COLUMNS = "id, folder, name, digest, length, dtype, recipe, codec, slots"


def _pool_of(row: tuple[Any, ...]) -> Pool:
    fields = dict(zip(_POOL_COLUMNS.split(", "), row, strict=True))
    return Pool(**{**fields, "recipe": json.loads(fields["recipe"])})


def _fields(pool: Pool) -> dict[str, Any]:
    return {name: getattr(pool, name) for name in _POOL_COLUMNS.split(", ")}


def _log_pages(limit: int | None) -> int:
    """Return the maximum length of the write-ahead log in pages: less for a small store limit."""
    if limit is None:
        return _LARGEST_LOG
    return max(8, min(_LARGEST_LOG, limit // 64 // 4096))
