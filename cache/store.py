"""The feature store: verified rows under content keys, size-limited, shared by processes."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .disk import real_bytes
from .errors import StoreError, StoreFull, UsageError
from .eviction import Cleared, Freed, clear, make_all_room
from .filetable import recall, remember
from .handle import Handle
from .index import FileIdentity, FileRecord
from .keys import PoolSpec, check_keys
from .keytable import segment_of
from .loans import Loan
from .located import Located, RowsLost, locate
from .opening import LimitChange, Opened, StoreOptions, change_limit, folder_lock
from .pins import Pin
from .reader import check_buffer
from .scan import scan
from .sealed import SealedSegment, sealed_segments
from .segmentfiles import LocalSegments, SegmentFiles
from .segments import Written
from .state import INDEX, POOLS, State
from .statistics import PoolStat, StoreStat, stat
from .verify import Finding, VerifyReport, index_problem, verify

__all__ = [
    "Cleared",
    "FeatureStore",
    "FileIdentity",
    "FileRecord",
    "Finding",
    "Freed",
    "LimitChange",
    "Loan",
    "Located",
    "Pin",
    "PoolStat",
    "RowsLost",
    "SealedSegment",
    "SegmentFiles",
    "StoreError",
    "StoreFull",
    "StoreStat",
    "VerifyReport",
    "real_bytes",
]

SMALLEST_LIMIT = 1 << 20


def _no_limit() -> None:
    """Default `first_limit` callback: no limit."""


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < SMALLEST_LIMIT:
        raise UsageError(f"a store takes at least 1 MiB, and the limit is {limit} bytes")


class FeatureStore:
    """A size-limited store of rows on disk, for any number of processes and threads at once.

    Parameters
    ----------
    path
        The store's folder; created if missing.
    limit
        Bytes that the store may take on disk, everything included. The limit is kept with the
        store and applies to every process; a number changes it and evicts what exceeds it.
        Least recently used segments are evicted first; reading or putting a row counts as a use
        of its segment.
    first_limit
        Called for the limit if `limit` is None and the store keeps none yet, as when it is
        created; by default there is no limit (None).
    durable
        Wait for the disk on each commit: rows then survive a loss of power, not only a kill.
    compress
        Compress rows with byte shuffle and lz4. Rows put without it are still found, and vice
        versa.
    sealed
        Where sealed segments are kept; by default in the store's folder, as Zarr shards.

    Raises
    ------
    StoreError
        The folder cannot be used: not writable, not a store, or of another format version.
    UsageError
        The limit is below 1 MiB.

    Attributes
    ----------
    limit_change
        How opening the store changed its limit, and what was evicted for it; None if unchanged.

    Notes
    -----
    Every read verifies the row against a checksum that is seeded with its key; a row that fails
    is a miss, and is dropped. Rows that `put_many` counted survive a kill of the process.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from lpipstore.cache.keys import PoolSpec
    >>> from lpipstore.cache.store import FeatureStore
    >>> spec = PoolSpec("demo", length=3, dtype="uint16", recipe={"made": "by hand"})
    >>> key = spec.key(b"an image's hash")
    >>> with tempfile.TemporaryDirectory() as folder, FeatureStore(folder) as store:
    ...     store.put(spec, key, np.array([1, 2, 3], "uint16"))
    ...     store.get(key)
    True
    array([1, 2, 3], dtype=uint16)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        limit: int | None = None,
        first_limit: Callable[[], int | None] = _no_limit,
        durable: bool = False,
        compress: bool = False,
        sealed: SegmentFiles | None = None,
    ) -> None:
        _check_limit(limit)
        self.path = Path(os.path.expanduser(path)).absolute()
        options = StoreOptions(
            self.path,
            durable,
            codec="lz4" if compress else "",
            sealed=sealed or LocalSegments(self.path / POOLS, durable=durable),
        )
        self._handle = Handle(options, limit=limit, first_limit=first_limit)
        self._run = self._handle.run
        self.limit_change = self._handle.opened.limit_change

    # -- rows -----------------------------------------------------------------------------------

    def put(self, spec: PoolSpec, key: bytes, row: NDArray[Any]) -> bool:
        """Put one row of shape (length,); see `put_many`. True if the store holds it."""
        return self.put_many(spec, [key], row[None]) == 1

    def put_many(self, spec: PoolSpec, keys: Sequence[bytes], rows: NDArray[Any]) -> int:
        """Put rows under their keys; all rows counted in the result are committed (kill-safe).

        Parameters
        ----------
        spec
            The kind of row.
        keys
            One key of 16 bytes for each row, as `PoolSpec.key` makes them.
        rows
            Shape (n, length), of the dtype of `spec` in either byte order.

        Returns
        -------
        int
            How many of these rows were admitted or already stored. Less than n if the limit is
            reached and everything else is pinned or being written. (If there are more rows than
            the limit has room for, the first ones are evicted again.)

        Raises
        ------
        StoreFull
            No space left on the disk; rows committed before stay.
        UsageError
            Shape, dtype or keys are wrong.
        """
        wanted = list(keys)
        check_keys(wanted)
        if rows.shape != (len(wanted), spec.length) or rows.dtype.name != spec.dtype:
            raise UsageError(
                f"{len(wanted)} rows of pool {spec.name} have shape ({len(wanted)}, "
                f"{spec.length}) and dtype {spec.dtype}, not {rows.shape} and {rows.dtype}"
            )
        listed = list(np.ascontiguousarray(rows, np.dtype(spec.dtype)))  # in native byte order
        return self._run(lambda opened: opened.writer.put(spec, wanted, listed))

    def get(self, key: bytes) -> NDArray[Any] | None:
        """Return a verified copy of a row as stored, or None (a miss)."""
        check_keys([key])

        def get(opened: Opened) -> NDArray[Any] | None:
            row = opened.reader.get(key)
            opened.state.flush(now=False)
            return row

        return self._run(get)

    def get_many(self, keys: Sequence[bytes], out: NDArray[Any]) -> NDArray[np.bool_]:
        """Fill ``out[i]`` with the row of ``keys[i]``, verified.

        Parameters
        ----------
        keys
            n keys of one pool's rows, in any order; repeats are allowed.
        out
            Shape (n, length), each row contiguous: of the pool's dtype, to get rows as stored, or
            float32, to get values (stored number times scale factor).

        Returns
        -------
        ndarray of bool, shape (n,)
            False for a miss (never put, evicted, corrupt); that row of `out` is then filled with
            the fill value of its dtype, which no stored row consists of.

        Raises
        ------
        UsageError
            `out` does not fit the keys or the rows.
        """
        wanted = list(keys)
        check_keys(wanted)
        check_buffer(wanted, out)

        def get_many(opened: Opened) -> NDArray[np.bool_]:
            found = opened.reader.get_many(wanted, out)
            opened.state.flush(now=False)
            return found

        return self._run(get_many)

    def contains(self, key: bytes) -> bool:
        """Return whether the index knows a key.

        This does not count as a use of the row, which may be evicted afterwards.
        """
        return not self.missing([key])

    def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the keys that the index does not know, in the given order, without repeats."""
        wanted = list(dict.fromkeys(keys))
        check_keys(wanted)

        def missing(opened: Opened) -> list[bytes]:
            opened.state.sync()
            places, _ = opened.state.find(wanted)
            return [wanted[at] for at in np.flatnonzero(places < 0).tolist()]

        return self._run(missing)

    def locate(self, spec: PoolSpec, keys: Sequence[bytes]) -> Located:
        """Return where rows lie, for other processes that see the store's files.

        Parameters
        ----------
        spec
            The kind of row.
        keys
            Their keys, in any order; repeats are allowed.

        Raises
        ------
        RowsLost
            The store does not hold some of these rows.
        """
        wanted = list(keys)
        check_keys(wanted)

        def find(opened: Opened) -> Located:
            opened.state.sync()
            places, _ = opened.state.find(wanted)
            if opened.writer.writes({segment_of(place) for place in places.tolist()}):
                opened.writer.seal_all()  # other hosts see what is closed
            return locate(opened.state, wanted, spec.length, spec.dtype)

        return self._run(find)

    def lend(self, spec: PoolSpec, rows: int) -> Loan | None:
        """Lend a segment for up to `rows` rows to another process, which fills it by `Loan.write`.

        It counts against the limit from now on; None if there is no room. Lent segments are given
        back to `accept` or to `take_back`, or removed when the store is closed.

        Raises
        ------
        StoreFull
            No space left on the disk.
        """
        return self._run(lambda opened: opened.lender.lend(spec, rows))

    def accept(self, returned: Sequence[tuple[Loan, Written]]) -> list[bool]:
        """Enter segments that other processes have filled, all in one transaction.

        Returns False for those whose rows the store does not hold now: the file is not what its
        writer said, or the index was replaced meanwhile.
        """
        return self._run(lambda opened: opened.lender.accept(returned))

    def take_back(self, loan: Loan) -> None:
        """Remove a lent segment that nobody will fill."""
        self._run(lambda opened: opened.lender.take_back(loan))

    def scan(
        self, spec: PoolSpec, *, batch_rows: int | None = None, dtype: str | None = None
    ) -> Iterator[tuple[list[bytes], NDArray[Any]]]:
        """Read every row of a pool in storage order.

        The next batch is read while the caller works on the current one, so memory holds two
        batches, however large the store is.

        Parameters
        ----------
        spec
            The kind of row.
        batch_rows
            Rows in a batch; by default about 8 MB of them.
        dtype
            ``float32`` to get values, as `get_many` does; by default rows as stored.

        Yields
        ------
        keys, rows
            n keys and their rows, shape (n, length), verified. `rows` is valid only until the
            next iteration: copy what you keep.

        Raises
        ------
        UsageError
            The dtype is neither the pool's nor float32.
        """
        if dtype not in (None, spec.dtype, "float32"):
            raise UsageError(f"rows of {spec.name} come as {spec.dtype} or float32, not {dtype}")

        def in_step(opened: Opened) -> Opened:
            opened.state.sync()
            return opened

        opened = self._run(in_step)
        return scan(opened.state, opened.reader, spec, batch_rows=batch_rows, dtype=dtype)

    def sealed(self, recipe: Mapping[str, str] | None = None) -> list[SealedSegment]:
        """Return the sealed segments of the pools whose recipe contains these items.

        Those that this process is writing are sealed first. The most recently used segments come
        first. They may be evicted afterwards, unless their keys are pinned.
        """

        def sealed(opened: Opened) -> list[SealedSegment]:
            opened.writer.seal_all()
            return sealed_segments(opened.state, recipe)

        return self._run(sealed)

    def pin(self, run: str, keys: Iterable[bytes]) -> Pin:
        """Protect the rows of these keys from eviction, including rows put later.

        The pin is a lease of this process: it ends with `Pin.release`, at the end of its ``with``
        block, or with the process. Pinned rows may fill the store to its limit; the store then
        admits no more rows.
        """
        wanted = list(keys)
        check_keys(wanted)

        def on_state(action: Callable[[State], None]) -> None:
            self._run(lambda opened: action(opened.state))

        return self._run(lambda opened: Pin(opened.state, on_state, run, wanted))

    # -- files ----------------------------------------------------------------------------------

    def recall_files(self, files: Sequence[FileIdentity]) -> list[FileRecord | None]:
        """Return the record of each file; None if the file is unknown or has changed."""
        return self._run(lambda opened: recall(opened.state, files))

    def remember_files(self, entries: Sequence[tuple[FileIdentity, FileRecord]]) -> None:
        """Keep records of files.

        Files changed less than 2 seconds before they were seen (`FileIdentity.seen_ns`) are left
        out: they may change again without a change of their modification time.
        """
        self._run(lambda opened: remember(opened.state, entries))

    # -- the store as a whole -------------------------------------------------------------------

    @property
    def limit(self) -> int | None:
        """Bytes that the store may take on disk, as set by any process; None: no limit."""

        def limit(opened: Opened) -> int | None:
            opened.state.sync()
            return opened.state.limit

        return self._run(limit)

    def set_limit(self, limit: int | None) -> LimitChange:
        """Change the limit that is kept with the store, and evict what exceeds it.

        Parameters
        ----------
        limit
            Bytes on disk, at least 1 MiB; None for no limit.

        Raises
        ------
        UsageError
            The limit is below 1 MiB.
        StoreError
            The store cannot be written. The limit is unchanged.
        """
        _check_limit(limit)

        def change(opened: Opened) -> LimitChange:
            with contextlib.suppress(StoreFull):  # eviction is what makes room
                opened.writer.seal_all()
            with folder_lock(self.path):
                return change_limit(opened.state, limit)

        return self._run(change)

    def stat(self) -> StoreStat:
        """Return the store's contents, its bytes on disk and its counters."""
        return self._run(lambda opened: stat(opened.state))

    def evict(self, to_bytes: int) -> Freed:
        """Evict least recently used segments until the store takes at most `to_bytes` on disk.

        Pinned segments and those that other processes are writing stay, so the store may still
        take more.
        """

        def evict(opened: Opened) -> Freed:
            with contextlib.suppress(StoreFull):  # eviction is what makes room
                opened.writer.seal_all()
            with opened.state.transaction() as transaction:
                return make_all_room(opened.state, transaction, to_bytes)

        return self._run(evict)

    def clear(self, recipe: Mapping[str, str] | None = None) -> Cleared:
        """Remove all rows of the pools whose recipe contains these items; by default of all pools.

        Pinned segments and those that other processes are writing stay. Without `recipe`, the
        records of files are removed too.
        """

        def clear_rows(opened: Opened) -> Cleared:
            with contextlib.suppress(StoreFull):
                opened.writer.seal_all()
            return clear(opened.state, recipe)

        return self._run(clear_rows)

    def verify(self, *, repair: bool = False) -> VerifyReport:
        """Verify the checksum of every row; cross-check index, files and Zarr metadata.

        With `repair`, corrupt rows are removed from the index and marked as absent in their
        shards, damaged footers and metadata are rewritten, and a damaged index is rebuilt from
        the segments. Repairs made when this store was opened are reported too.
        """
        opened = self._run(lambda opened: opened)
        problem = index_problem(opened.state)
        if problem is not None and not repair:
            report = VerifyReport(str(self.path))
            report.found("damaged index", f"{self.path / INDEX}: {problem}")
            return report
        if problem is not None:
            self._handle.heal(opened)
        return self._run(lambda opened: verify(opened.state, opened.recovered, repair=repair))

    def close(self) -> None:
        """Seal open segments and close the store; closing twice is harmless.

        In a process forked while the store was open, this leaves the parent's segments alone.
        """
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r}, limit={self._handle.opened.state.limit})"
