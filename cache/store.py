"""The feature store: rows of numbers under content keys, bounded, checked, shared by processes."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import IndexDamaged, IndexReplaced, StoreError, StoreFull, UsageError
from .eviction import Cleared, Freed, clear, make_all_room
from .filetable import recall, remember
from .index import FileIdentity, FileRecord, real_bytes
from .keys import PoolSpec, check_keys
from .opening import LimitChange, Opened, change_limit, folder_lock, open_store
from .pins import Pin
from .reader import check_buffer
from .recovery import set_index_aside
from .scan import scan
from .state import INDEX, State
from .statistics import PoolStat, StoreStat, stat
from .verify import Finding, VerifyReport, index_problem, verify
from .writer import disk_errors, store_error

__all__ = [
    "Cleared",
    "FeatureStore",
    "FileIdentity",
    "FileRecord",
    "Finding",
    "Freed",
    "LimitChange",
    "Pin",
    "PoolStat",
    "StoreError",
    "StoreFull",
    "StoreStat",
    "VerifyReport",
    "real_bytes",
]

SMALLEST_LIMIT = 1 << 20
_Result = TypeVar("_Result")


def _no_limit() -> None:
    """Default of `first_limit`."""


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < SMALLEST_LIMIT:
        raise UsageError(f"a store takes at least 1 MiB, and the limit is {limit} bytes")


class FeatureStore:
    """A bounded store of rows on disk, open in any number of processes and threads at once.

    Parameters
    ----------
    path
        The store's folder; made if it is not there.
    limit
        Bytes that the store may take on disk, everything included. The limit is kept with the
        store and holds for every process; a number changes it, and evicts what goes beyond it.
        Least recently used segments leave first: a segment is used when a row of it is read or
        put.
    first_limit
        Called for the limit where none is given and the store keeps none yet, as one that is
        made now; by default there is no limit (None).
    durable
        Wait for the disk on each commit: rows then survive a loss of power, not only a kill.
    compress
        Pack rows with byte shuffle and lz4. Rows put without it are still found, and the other
        way round.

    Raises
    ------
    StoreError
        The folder cannot be used: not writable, not a store, or of another format version.
    UsageError
        The limit is below 1 MiB.

    Attributes
    ----------
    limit_change
        What opening the store changed of its limit, and what left for it; None if nothing.

    Notes
    -----
    Rows are checked on every read against a checksum that is seeded with their key; one that
    fails is a miss, and is dropped. What `put_many` has returned survives a kill of the process.

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
    ) -> None:
        _check_limit(limit)
        self.path = Path(os.path.expanduser(path)).absolute()
        self.durable = durable
        self.codec = "lz4" if compress else ""
        self._guard = threading.Lock()
        self._closed = False
        self._left: list[Opened] = []
        self._opened = open_store(
            self.path,
            limit=limit,
            first_limit=first_limit,
            durable=self.durable,
            codec=self.codec,
        )
        self.limit_change = self._opened.limit_change

    # -- rows -----------------------------------------------------------------------------------

    def put(self, spec: PoolSpec, key: bytes, row: NDArray[Any]) -> bool:
        """Put one row of shape (length,); see `put_many`. True if the store holds it."""
        return self.put_many(spec, [key], row[None]) == 1

    def put_many(self, spec: PoolSpec, keys: Sequence[bytes], rows: NDArray[Any]) -> int:
        """Put rows under their keys; what is counted in the result is committed (kill-safe).

        Parameters
        ----------
        spec
            What the rows are.
        keys
            One key of 16 bytes for each row, as `PoolSpec.key` makes them.
        rows
            Shape (n, length), of the dtype of `spec` in either byte order.

        Returns
        -------
        int
            How many of these rows were admitted, or were there already. Less than n when the
            limit is reached and everything else is pinned or being written. (Of more rows than
            the limit has room for, the first ones leave again.)

        Raises
        ------
        StoreFull
            The disk took no more; what was committed before stays.
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
            n keys of one pool's rows, in any order, also repeated.
        out
            Shape (n, length), each row contiguous: of the pool's dtype, to get rows as stored, or
            float32, to get values (stored number times scale factor).

        Returns
        -------
        ndarray of bool, shape (n,)
            False for a miss (never put, evicted, corrupt); that row of `out` is then filled with
            the fill value of its dtype, which no row consists of.

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
        """Tell whether the index knows a key; no use of the row, and no promise for later."""
        return not self.missing([key])

    def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the keys that the index does not know, in the order given, each once."""
        wanted = list(dict.fromkeys(keys))
        check_keys(wanted)

        def missing(opened: Opened) -> list[bytes]:
            opened.state.sync()
            places, _ = opened.state.find(wanted)
            return [wanted[at] for at in np.flatnonzero(places < 0).tolist()]

        return self._run(missing)

    def scan(
        self, spec: PoolSpec, *, batch_rows: int | None = None, dtype: str | None = None
    ) -> Iterator[tuple[list[bytes], NDArray[Any]]]:
        """Read every row of a pool in the order in which they are stored.

        The next batch is read while the caller works on one, so memory holds two batches,
        however large the store is.

        Parameters
        ----------
        spec
            Which rows.
        batch_rows
            Rows in a batch; by default about 8 MB of them.
        dtype
            ``float32`` to get values, as `get_many` does; by default rows as stored.

        Yields
        ------
        keys, rows
            n keys and their rows, shape (n, length), verified. `rows` is valid until the next
            step only: copy what is to stay.

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

    def pin(self, run: str, keys: Iterable[bytes]) -> Pin:
        """Keep rows of these keys from eviction, those put later included, until released.

        The pin is a lease of this process: it ends with `Pin.release`, with its ``with`` block,
        or when the process is gone. What is pinned may fill the store to its limit, which then
        admits no more.
        """
        wanted = list(keys)
        check_keys(wanted)

        def on_state(action: Callable[[State], None]) -> None:
            self._run(lambda opened: action(opened.state))

        return self._run(lambda opened: Pin(opened.state, on_state, run, wanted))

    # -- files ----------------------------------------------------------------------------------

    def recall_files(self, files: Sequence[FileIdentity]) -> list[FileRecord | None]:
        """Return what is known of each file; None where it is unknown or has changed."""
        return self._run(lambda opened: recall(opened.state, files))

    def remember_files(self, entries: Sequence[tuple[FileIdentity, FileRecord]]) -> None:
        """Keep what was found out about files.

        Files changed less than 2 seconds before they were seen (`FileIdentity.seen_ns`) are left
        out: they may change again without their time moving.
        """
        self._run(lambda opened: remember(opened.state, entries))

    # -- the store as a whole -------------------------------------------------------------------

    @property
    def limit(self) -> int | None:
        """Bytes that the store may take on disk, whichever process said so; None: no limit."""

        def limit(opened: Opened) -> int | None:
            opened.state.sync()
            return opened.state.limit

        return self._run(limit)

    def set_limit(self, limit: int | None) -> LimitChange:
        """Change the limit that is kept with the store, and evict what goes beyond it.

        Parameters
        ----------
        limit
            Bytes on disk, at least 1 MiB; None for no limit.

        Raises
        ------
        UsageError
            It is below 1 MiB.
        StoreError
            The store cannot be written. The limit is what it was.
        """
        _check_limit(limit)

        def change(opened: Opened) -> LimitChange:
            with contextlib.suppress(StoreFull):  # eviction is what makes room
                opened.writer.seal_all()
            with folder_lock(self.path):
                return change_limit(opened.state, limit)

        return self._run(change)

    def stat(self) -> StoreStat:
        """Return what the store holds, its real bytes and its counters."""
        return self._run(lambda opened: stat(opened.state))

    def evict(self, to_bytes: int) -> Freed:
        """Evict least recently used segments until the store takes at most `to_bytes` on disk.

        Pinned segments and those that other processes are writing stay, so it may take more.
        """

        def evict(opened: Opened) -> Freed:
            with contextlib.suppress(StoreFull):  # eviction is what makes room
                opened.writer.seal_all()
            with opened.state.transaction() as transaction:
                return make_all_room(opened.state, transaction, to_bytes)

        return self._run(evict)

    def clear(self, recipe: Mapping[str, str] | None = None) -> Cleared:
        """Remove every row of the pools whose recipe has all of these items; of all without any.

        Pinned segments and those that other processes are writing stay. Without `recipe`, what is
        known of files goes too.
        """

        def clear_rows(opened: Opened) -> Cleared:
            with contextlib.suppress(StoreFull):
                opened.writer.seal_all()
            return clear(opened.state, recipe)

        return self._run(clear_rows)

    def verify(self, *, repair: bool = False) -> VerifyReport:
        """Read every row against its checksum, cross-check index, files and Zarr metadata.

        With `repair`, corrupt rows leave the index and are marked as absent in their shards,
        damaged footers and metadata are written anew, and a damaged index is rebuilt from the
        segments. What was put right when this store was opened is reported too, as repaired.
        """
        opened = self._run(lambda opened: opened)
        problem = index_problem(opened.state)
        if problem is not None and not repair:
            report = VerifyReport(str(self.path))
            report.found("damaged index", f"{self.path / INDEX}: {problem}")
            return report
        if problem is not None:
            self._heal(opened)
        return self._run(lambda opened: verify(opened.state, opened.recovered, repair=repair))

    def close(self) -> None:
        """Seal what is open and let go of the store; again is harmless.

        A process that was forked while the store was open leaves it alone.
        """
        with self._guard:
            if self._closed:
                return
            self._closed = True
        if self._opened.pid == os.getpid():
            self._opened.close()

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
        return f"FeatureStore({str(self.path)!r}, limit={self._opened.state.limit})"

    # -- opening --------------------------------------------------------------------------------

    def _run(self, action: Callable[[Opened], _Result]) -> _Result:
        """Do something with the open store; opened anew after a fork or if its index went."""
        if self._closed:
            raise StoreError(f"the store at {self.path} is closed")
        opened = self._opened
        if opened.pid != os.getpid():
            self._guard = threading.Lock()  # another thread of the parent may have held it
            opened = self._reopen(opened)
        try:
            return action(opened)
        except IndexReplaced:
            return self._retry(action, self._reopen(opened))
        except IndexDamaged:
            return self._retry(action, self._heal(opened))
        except OSError as error:
            raise store_error(self.path, error) from error

    def _retry(self, action: Callable[[Opened], _Result], opened: Opened) -> _Result:
        with disk_errors(self.path):
            return action(opened)

    def _reopen(self, before: Opened) -> Opened:
        with self._guard:
            if self._opened is before:
                self._left.append(before)  # kept: closing it would touch what is not ours any more
                mine = before.pid == os.getpid()
                if mine:
                    before.writer.abandon()
                self._opened = open_store(
                    self.path,
                    limit=None,
                    first_limit=lambda: before.state.limit,
                    durable=self.durable,
                    codec=self.codec,
                )
                for pin in before.state.pins if mine else ():
                    pin.attach(self._opened.state)
            return self._opened

    def _heal(self, before: Opened) -> Opened:
        """Move a damaged index aside and build one from what the segments say of themselves."""
        with self._guard, folder_lock(self.path):
            if self._opened is before and before.state.index.is_current():
                set_index_aside(self.path / INDEX, "damaged")
        return self._reopen(before)
