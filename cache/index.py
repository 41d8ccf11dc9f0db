"""The store's index: an SQLite database in WAL mode, and the transactions on it."""

import contextlib
import os
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .disk import real_bytes
from .errors import IndexDamaged, IndexReplaced, StoreError, StoreFull, setting
from .keys import FORMAT_VERSION
from .lock import PATIENCE_S, FileLock, wait_for_lock

_APPLICATION = 0x4C504950  # "LPIP": marks the database as ours
_PAGE = 4096

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE pools (
    id INTEGER PRIMARY KEY AUTOINCREMENT, folder TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
    digest BLOB NOT NULL, length INTEGER NOT NULL, dtype TEXT NOT NULL, recipe TEXT NOT NULL,
    codec TEXT NOT NULL, slots INTEGER NOT NULL, next_number INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE segments (
    id INTEGER PRIMARY KEY AUTOINCREMENT, pool INTEGER NOT NULL, number INTEGER NOT NULL,
    sealed INTEGER NOT NULL DEFAULT 0, rows INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL, used INTEGER NOT NULL, UNIQUE (pool, number)
);
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, segment INTEGER NOT NULL, slot INTEGER NOT NULL,
    records BLOB NOT NULL, sizes BLOB
);
CREATE INDEX entries_segment ON entries (segment);
CREATE TABLE dropped (
    id INTEGER PRIMARY KEY AUTOINCREMENT, segment INTEGER NOT NULL, slot INTEGER NOT NULL,
    UNIQUE (segment, slot)
);
CREATE TABLE leases (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, pid INTEGER NOT NULL,
    started TEXT NOT NULL, space TEXT NOT NULL, beat INTEGER NOT NULL
);
CREATE TABLE pins (
    segment INTEGER NOT NULL, lease INTEGER NOT NULL, PRIMARY KEY (segment, lease)
) WITHOUT ROWID;
CREATE TABLE files (
    id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB NOT NULL UNIQUE, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, content BLOB NOT NULL, note TEXT NOT NULL
);
"""


@dataclass(frozen=True)
class FileIdentity:
    """Identifies one version of a file: its absolute path and what ``stat`` returned.

    `seen_ns` is the time in nanoseconds at which ``stat`` was called, before the file was read. A
    record is kept only if the file had not been changed just before. `seen_ns` is not part of the
    identity.
    """

    path: bytes
    size: int
    mtime_ns: int
    inode: int
    seen_ns: int = field(default=0, compare=False)


@dataclass(frozen=True)
class FileRecord:
    """What is known about a file: the hash of its bytes, and a note by the caller."""

    content: bytes
    note: str


class Transaction:
    """A write transaction: runs SQL, and callbacks after the commit or a failure."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.execute = connection.execute
        self.executemany = connection.executemany
        self.after: list[Callable[[], None]] = []
        self.failed: list[Callable[[], None]] = []

    def then(self, action: Callable[[], None]) -> None:
        """Run `action` after the commit, before any other thread can use the index."""
        self.after.append(action)

    def otherwise(self, action: Callable[[], None]) -> None:
        """Run `action` if the transaction fails, after its rollback; it may begin another one."""
        self.failed.append(action)


class Index:
    """One connection to the index, shared by the threads of a process under `lock`.

    A process holds a lock file while it writes or checkpoints (copies the log back into the
    database, as part of a commit). SQLite allows both at once, and up to 3.51.2 that can lose
    committed data (https://www.sqlite.org/wal.html#walresetbug).

    Parameters
    ----------
    path
        The database file; created, with its tables, if missing.
    durable
        Wait for the disk on each commit, so that it survives a loss of power.
    store_id
        The store's id, for an index that has to be created; by default a new random id.

    Raises
    ------
    IndexDamaged
        The file is not a database.
    StoreError
        It cannot be opened, belongs to another program, or has another format version.
    """

    def __init__(self, path: Path, *, durable: bool, store_id: str | None = None) -> None:
        self.path = path
        self.lock = threading.RLock()
        with translated(path):
            self.connection = sqlite3.connect(
                path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False
            )
        try:
            gate = os.open(gate_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            self.connection.close()
            raise
        self._gate = FileLock(gate)
        try:
            with self._writing(), translated(path):
                self._prepare(durable, store_id or uuid.uuid4().hex)
                self._inode = path.stat().st_ino
        except (StoreError, OSError):
            self.close()
            raise

    def _prepare(self, durable: bool, store_id: str) -> None:
        run = self.connection.execute
        run(f"PRAGMA page_size = {_PAGE}")
        self._check_owner()  # before anything is written
        run("PRAGMA journal_mode = WAL")
        run(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        run("BEGIN IMMEDIATE")
        try:
            self._check_format(store_id)
            run("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk rolls back by itself
                run("ROLLBACK")
            raise

    def _check_owner(self) -> None:
        run = self.connection.execute
        application = run("PRAGMA application_id").fetchone()[0]
        tables = run("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if tables and application != _APPLICATION:
            raise StoreError(
                f"{self.path} is another program's database; move it to another place, and the "
                "store builds its index anew"
            )

    def _check_format(self, store_id: str) -> None:
        run = self.connection.execute
        application = run("PRAGMA application_id").fetchone()[0]
        version = run("PRAGMA user_version").fetchone()[0]
        tables = run("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if application == 0 and version == 0 and tables == 0:
            for statement in _SCHEMA.split(";"):
                run(statement)
            run(f"PRAGMA application_id = {_APPLICATION}")
            run(f"PRAGMA user_version = {FORMAT_VERSION}")
            run("INSERT INTO meta VALUES ('store', ?)", (store_id,))
        elif application != _APPLICATION:
            raise IndexDamaged(f"{self.path} does not say that it is an index")
        elif version != FORMAT_VERSION:
            raise wrong_format(self.path.parent, version)

    def bound_log(self, pages: int) -> None:
        """Checkpoint the write-ahead log whenever it reaches `pages` pages of 4,096 bytes."""
        with self.lock, translated(self.path):
            self.connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
            self.connection.execute(f"PRAGMA journal_size_limit = {pages * _PAGE}")

    def trim_log(self) -> None:
        """Checkpoint and empty the log; skipped if others are using the index."""
        with self.lock, self._writing(), contextlib.suppress(sqlite3.Error):
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextlib.contextmanager
    def transaction(self, *, patience: float | None = None) -> Iterator[Transaction]:
        """Hold the store's write lock; commit all of the block, or nothing.

        An interrupt may be raised after the commit, before the `Transaction.then` callbacks run.

        Parameters
        ----------
        patience
            Seconds to wait for other writers; by default two minutes.

        Raises
        ------
        IndexReplaced
            The index file was removed or replaced since it was opened.
        StoreBusy
            Others were writing during the whole wait.
        StoreFull
            No space left on the disk. Nothing of the block is committed.
        """
        with self.lock:
            self._check_file()
            transaction = Transaction(self.connection)
            try:
                with self._writing(patience), translated(self.path):
                    self.connection.execute("BEGIN IMMEDIATE")
                    try:
                        yield transaction
                        self.connection.execute("COMMIT")
                    except BaseException:
                        with contextlib.suppress(sqlite3.Error):  # a full disk does so by itself
                            self.connection.execute("ROLLBACK")
                        raise
            except BaseException:
                for action in transaction.failed:
                    action()
                raise
            for action in transaction.after:
                action()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read from one snapshot of the index, whatever others commit meanwhile."""
        with self.lock, translated(self.path):
            if self.connection.in_transaction:
                yield self.connection
                return
            self.connection.execute("BEGIN")
            try:
                yield self.connection
            finally:
                self.connection.execute("ROLLBACK")

    def version(self) -> int:
        """Return a number that changes whenever another connection has committed.

        Raises
        ------
        IndexReplaced
            The index file was removed or replaced since it was opened.
        """
        with self.lock, translated(self.path):
            self._check_file()
            version: int = self.connection.execute("PRAGMA data_version").fetchone()[0]
            return version

    def store_id(self) -> str:
        """Return the unique id of the store."""
        with self.reading() as connection:
            row = connection.execute("SELECT value FROM meta WHERE name = 'store'").fetchone()
        if row is None:
            raise IndexDamaged(f"{self.path} does not say which store it belongs to")
        return str(row[0])

    def real_bytes(self) -> int:
        """Return the bytes that database, log and shared memory take on disk."""
        return sum(real_bytes(self.path.with_name(self.path.name + end)) for end in ENDINGS)

    def vacuum(self) -> None:
        """Release unused pages; skipped if others are using the index."""
        with self.lock, self._writing(), contextlib.suppress(sqlite3.Error):
            self.connection.execute("VACUUM")
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the connection; the last one to close checkpoints the log and removes it."""
        with self.lock, self._writing(), contextlib.suppress(sqlite3.Error):
            self.connection.close()
        self._gate.close()

    @contextlib.contextmanager
    def _writing(self, patience: float | None = None) -> Iterator[None]:
        """Hold the lock file, so that no one else writes or checkpoints meanwhile."""
        wait_for_lock(self._gate, f"writing to {self.path}", patience)
        try:
            yield
        finally:
            self._gate.release()

    def is_current(self) -> bool:
        """Return whether the file is still the one that was opened."""
        try:
            return os.stat(self.path).st_ino == self._inode
        except OSError:
            return False

    def _check_file(self) -> None:
        if not self.is_current():
            raise IndexReplaced(f"{self.path} was exchanged while the store was open")


ENDINGS = ("", "-wal", "-shm")  # the three files of a database in WAL mode


def gate_path(index: Path) -> Path:
    """Return the lock file of an index."""
    return index.with_name(index.name + ".lock")


def is_index(path: Path) -> bool:
    """Return whether a file has the header of a store's index."""
    try:
        with path.open("rb") as file:
            header = file.read(72)
    except OSError:
        return False
    return header.startswith(b"SQLite format 3\0") and header[68:] == _APPLICATION.to_bytes(
        4, "big"
    )


def wrong_format(store: Path, version: Any) -> StoreError:  # noqa: ANN401 - whatever stands there
    """Return the error for a store of another format version."""
    return StoreError(
        f"the store at {store} has format {version}, and this lpipstore reads format "
        f"{FORMAT_VERSION}; use another folder ({setting('store')}), or delete that one: its rows "
        "can be computed again"
    )


_FULL = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_FSYNC,
}


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite errors into `StoreError`."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0)
        if code in _FULL:
            raise StoreFull(f"no space left for {path}: {error}") from error
        if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise IndexDamaged(
                f"{path} is damaged ({error}); `lpipstore store verify --repair` builds it anew"
            ) from error
        if isinstance(error, sqlite3.OperationalError) and "no such" in str(error):
            raise IndexDamaged(f"{path} lacks a table: {error}") from error
        raise StoreError(f"{path}: {error}") from error
