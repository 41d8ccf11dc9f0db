"""The feature store: rows of numbers under content keys, bounded, checked, shared by processes."""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import IndexDamaged, IndexReplaced, StoreError, StoreFull, UsageError
from .filetable import recall, remember
from .index import FileIdentity, FileRecord, wrong_format
from .keys import FORMAT_VERSION, PoolSpec, check_keys
from .pools import read_group, write_group
from .reader import Reader, check_buffer
from .recovery import recover, set_index_aside
from .stat import PoolStat, StoreStat, stat
from .state import INDEX, OPEN, POOLS, State
from .writer import Writer, disk_errors

__all__ = [
    "FeatureStore",
    "FileIdentity",
    "FileRecord",
    "PoolStat",
    "StoreError",
    "StoreFull",
    "StoreStat",
]

_SMALLEST_LIMIT = 1 << 20
_Result = TypeVar("_Result")


class _Opened:
    """A store as one process opened it."""

    def __init__(self, state: State, codec: str) -> None:
        self.pid = os.getpid()
        self.state = state
        self.reader = Reader(state)
        self.writer = Writer(state, codec)

    def close(self) -> None:
        self.writer.close()
        self.state.close()


class FeatureStore:
    """A bounded store of rows on disk, open in any number of processes and threads at once.

    Parameters
    ----------
    path
        The store's folder; made if it is not there.
    limit
        Bytes that the store may take on disk, everything included; None for no limit. Least
        recently used segments leave first: a segment is used when a row of it is read or put.
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
        durable: bool = False,
        compress: bool = False,
    ) -> None:
        if limit is not None and limit < _SMALLEST_LIMIT:
            raise UsageError(f"a store takes at least 1 MiB, and the limit is {limit} bytes")
        self.path = Path(path).absolute()
        self.limit = limit
        self.durable = durable
        self.codec = "lz4" if compress else ""
        self._guard = threading.Lock()
        self._closed = False
        self._left: list[_Opened] = []
        self._opened = self._open()

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
            Shape (n, length), of the dtype of `spec`.

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
        listed = list(np.ascontiguousarray(rows))
        return self._run(lambda opened: opened.writer.put(spec, wanted, listed))

    def get(self, key: bytes) -> NDArray[Any] | None:
        """Return a verified copy of a row as stored, or None (a miss)."""
        check_keys([key])

        def get(opened: _Opened) -> NDArray[Any] | None:
            pool = opened.reader.pool_of(key)
            if pool is None:
                opened.state.count(misses=1)
                opened.state.flush(now=False)
                return None
            out = np.empty((1, pool.length), pool.dtype)
            return out[0] if opened.reader.get_many([key], out)[0] else None

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

        def get_many(opened: _Opened) -> NDArray[np.bool_]:
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

        def missing(opened: _Opened) -> list[bytes]:
            opened.state.sync()
            places, _ = opened.state.find(wanted)
            return [wanted[at] for at in np.flatnonzero(places < 0).tolist()]

        return self._run(missing)

    # -- files ----------------------------------------------------------------------------------

    def recall_files(self, files: Sequence[FileIdentity]) -> list[FileRecord | None]:
        """Return what is known of each file; None where it is unknown or has changed."""
        return self._run(lambda opened: recall(opened.state, files))

    def remember_files(self, entries: Sequence[tuple[FileIdentity, FileRecord]]) -> None:
        """Keep what was found out about files, except those changed in the last 2 seconds."""
        self._run(lambda opened: remember(opened.state, entries))

    # -- the store as a whole -------------------------------------------------------------------

    def stat(self) -> StoreStat:
        """Return what the store holds, its real bytes and its counters."""
        return self._run(lambda opened: stat(opened.state))

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
        return f"FeatureStore({str(self.path)!r}, limit={self.limit})"

    # -- opening --------------------------------------------------------------------------------

    def _run(self, action: Callable[[_Opened], _Result]) -> _Result:
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
            return action(self._reopen(opened))

    def _reopen(self, before: _Opened) -> _Opened:
        with self._guard:
            if self._opened is before:
                self._left.append(before)  # kept: closing it would touch what is not ours any more
                self._opened = self._open()
            return self._opened

    def _open(self) -> _Opened:
        try:
            with disk_errors(self.path), _folder_lock(self.path):
                state = self._open_state()
        except PermissionError as error:
            raise StoreError(f"the store at {self.path} is not writable: {error}") from error
        return _Opened(state, self.codec)

    def _open_state(self) -> State:
        (self.path / POOLS).mkdir(exist_ok=True)
        (self.path / OPEN).mkdir(exist_ok=True)
        index = self.path / INDEX
        group = read_group(self.path / POOLS)
        if group is not None and group.get("format") != FORMAT_VERSION:
            raise wrong_format(self.path, group.get("format"))
        try:
            state = State(self.path, limit=self.limit, durable=self.durable)
            if group is not None and state.index.store_id() != group["store"]:
                state.close()
                set_index_aside(index, "foreign")
                state = State(self.path, limit=self.limit, durable=self.durable)
        except IndexDamaged:
            set_index_aside(index, "damaged")
            state = State(self.path, limit=self.limit, durable=self.durable)
        state.sync()
        if group is None or group["store"] != state.index.store_id():
            write_group(self.path / POOLS, state.index.store_id())
        with contextlib.suppress(StoreFull):  # then what is there can still be read
            recover(state)
        return state


@contextlib.contextmanager
def _folder_lock(path: Path) -> Iterator[None]:
    """Let one process at a time open a store, and only in a folder that is one or empty."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = path / "lock"
        if not lock.exists() and any(path.iterdir()):
            raise StoreError(
                f"{path} holds other things than a feature store; choose an empty or a new folder"
            )
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"{path} is not a folder; choose another place for the store") from error
    except PermissionError as error:
        raise StoreError(
            f"the store at {path} is not writable ({error.strerror}); choose another folder "
            "(--store), or ask for the right to write"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
