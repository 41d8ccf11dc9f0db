"""Opening a store: in a folder of its own, one process at a time, with recovery on the way."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .disk import disk_errors, is_temporary, remove_unfinished, sync_folder
from .errors import IndexDamaged, StoreError, StoreFull, setting
from .eviction import Freed, make_all_room
from .index import ENDINGS, gate_path, is_index, wrong_format
from .keys import FORMAT_VERSION
from .loans import Lender
from .lock import FileLock, wait_for_lock
from .pools import read_group, read_pool, write_group
from .reader import Reader
from .recovery import Recovered, recover, set_index_aside
from .segmentfiles import SegmentFiles
from .state import INDEX, OPEN, POOLS, State
from .writer import Writer


@dataclass(frozen=True)
class LimitChange:
    """A change of the store's limit, in bytes (None: no limit), and what was evicted for it."""

    before: int | None
    after: int | None
    freed: Freed


@dataclass(frozen=True)
class StoreOptions:
    """How a store is opened: its folder, and what this process does with it.

    `codec` is how new rows are compressed: ``""`` (not at all) or ``"lz4"``. `sealed` is where
    sealed segments are kept.
    """

    path: Path
    durable: bool
    codec: str
    sealed: SegmentFiles


class Opened:
    """A store as opened by one process: its state, reader, writer and lender."""

    def __init__(
        self, state: State, recovered: Recovered, change: LimitChange | None, codec: str
    ) -> None:
        self.pid = os.getpid()
        self.state = state
        self.recovered = recovered
        self.limit_change = change
        self.reader = Reader(state)
        self.writer = Writer(state, codec)
        self.lender = Lender(state, codec)

    def close(self) -> None:
        """Seal open segments, take back lent ones, save the counters and close the index."""
        self.lender.close()
        self.writer.close()
        self.state.close()


def open_store(
    options: StoreOptions, *, limit: int | None, first_limit: Callable[[], int | None]
) -> Opened:
    """Open a store, creating it if there is none.

    An index that is damaged or belongs to another store is moved aside and rebuilt from the
    segments. Segments that killed processes left behind are adopted or removed. Segments that
    exceed the limit are evicted.

    The limit is kept with the store. `limit` changes it; for a store that keeps none yet,
    `first_limit` is called.

    Raises
    ------
    StoreError
        The folder is not writable, holds other files, or is a store of another format version.
    """
    path, at_first = options.path, limit
    if limit is None and "limit" not in (read_group(path / POOLS) or {}):
        at_first = first_limit()  # before anything is created
    with folder_lock(path):
        (path / POOLS).mkdir(exist_ok=True)
        (path / OPEN).mkdir(exist_ok=True)
        remove_unfinished(path / POOLS)  # of a process that was killed while creating the store
        try:
            opened = _open_and_recover(options, limit, at_first)
        except IndexDamaged:
            set_index_aside(path / INDEX, "damaged")
            opened = _open_and_recover(options, limit, at_first)
    return Opened(*opened, options.codec)


def _open_and_recover(
    options: StoreOptions, limit: int | None, at_first: int | None
) -> tuple[State, Recovered, LimitChange | None]:
    state = _open_state(options, at_first)
    recovered, change = Recovered(), None
    try:
        with contextlib.suppress(StoreFull):  # existing rows can still be read
            recovered = recover(state)
        if limit is not None and limit != state.limit:
            change = change_limit(state, limit)
        elif state.limit is not None:
            with contextlib.suppress(StoreFull), state.transaction() as transaction:
                make_all_room(state, transaction, state.limit)
    except BaseException:
        state.close()
        raise
    return state, recovered, change


def change_limit(state: State, limit: int | None) -> LimitChange:
    """Change the store's limit and evict what exceeds it, in one transaction.

    The caller must hold the `folder_lock`. If this raises, the limit is unchanged.
    """
    before = state.limit
    with state.transaction() as transaction:
        state.keep_limit(transaction, limit)
        freed = Freed() if limit is None else make_all_room(state, transaction, limit)
        _describe(state)
    state.index.trim_log()  # it may be longer than the new limit allows
    return LimitChange(before, limit, freed)


def _open_state(options: StoreOptions, at_first: int | None) -> State:
    path = options.path
    group = read_group(path / POOLS)
    if group is not None and group.get("format") != FORMAT_VERSION:
        raise wrong_format(path, group.get("format"))
    store_id = None if group is None else group.get("store")
    state = _try_index(options, store_id)
    if group is not None and state.index.store_id() != store_id:
        state.close()
        set_index_aside(path / INDEX, "foreign")
        state = _try_index(options, store_id)
    try:
        if not state.keeps_limit:
            with state.transaction() as transaction:
                # the copy in the metadata survives the loss of the index
                state.keep_limit(transaction, (group or {}).get("limit", at_first))
        _describe(state)
    except BaseException:
        state.close()
        raise
    return state


def _describe(state: State) -> None:
    """Write the store's id and limit to its Zarr metadata, unless they are already there."""
    pools = state.path / POOLS
    if write_group(pools, state.index.store_id(), state.limit) and state.durable:
        sync_folder(pools)
        sync_folder(state.path)


def _try_index(options: StoreOptions, store_id: str | None) -> State:
    state = State(options.path, durable=options.durable, store_id=store_id, sealed=options.sealed)
    try:
        state.index.store_id()
        state.sync()
    except BaseException:
        state.close()
        raise
    return state


def is_store(path: Path) -> bool:
    """Return whether `path` holds a store, judging by its metadata, its index or its pools."""
    return (
        read_group(path / POOLS) is not None
        or is_index(path / INDEX)
        or any(read_pool(metadata.parent) for metadata in path.glob(f"{POOLS}/*/zarr.json"))
    )


def _is_blank(path: Path) -> bool:
    """Return whether a folder is empty or holds only the files of a store that is being created."""
    names = set(os.listdir(path))
    journal = f"{INDEX}-journal"  # of SQLite, until the index is in WAL mode
    own = {"lock", gate_path(path / INDEX).name, journal, *(INDEX + ending for ending in ENDINGS)}
    folders = names & {OPEN, POOLS}
    return not names or (
        "lock" in names
        and names <= own | folders
        and all(is_temporary(name) for folder in folders for name in os.listdir(path / folder))
    )


@contextlib.contextmanager
def folder_lock(path: Path) -> Iterator[None]:
    """Lock a store's folder while it is opened; it must be a store, empty, or not exist yet."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = path / "lock"
        if not _is_blank(path) and not is_store(path):
            raise StoreError(
                f"{path} holds other things than a feature store; choose an empty or a new folder"
            )
        held = FileLock(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"{path} is not a folder; choose another place for the store") from error
    except OSError as error:
        raise StoreError(
            f"the store at {path} is not writable ({error.strerror}); choose another folder "
            f"({setting('store')}), or ask for the right to write"
        ) from error
    try:
        wait_for_lock(held, f"opening {path}")
        with disk_errors(path):
            yield
    finally:
        held.close()
