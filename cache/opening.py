"""Opening a store: only in a folder of its own, one process at a time, and put right on the way."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import IndexDamaged, StoreError, StoreFull
from .index import wait_for_lock, wrong_format
from .keys import FORMAT_VERSION
from .pools import read_group, remove_unfinished, sync_folder, write_group
from .reader import Reader
from .recovery import Recovered, recover, set_index_aside
from .space import make_all_room
from .state import INDEX, OPEN, POOLS, State
from .writer import Writer, disk_errors


class Opened:
    """A store as one process opened it: what it knows, reads with and writes with."""

    def __init__(self, state: State, recovered: Recovered, codec: str) -> None:
        self.pid = os.getpid()
        self.state = state
        self.recovered = recovered
        self.reader = Reader(state)
        self.writer = Writer(state, codec)

    def close(self) -> None:
        """Seal what is open, write the counts down, let go of the index."""
        self.writer.close()
        self.state.close()


def open_store(path: Path, *, limit: int | None, durable: bool, codec: str) -> Opened:
    """Open the store at `path`, made first if there is none.

    An index that is damaged or another store's is moved aside, and one is built from what the
    segments say of themselves; what a killed process left is adopted or removed; what goes beyond
    the limit is evicted.

    Raises
    ------
    StoreError
        The folder is not writable, holds other things, or is a store of another format version.
    """
    with folder_lock(path):
        (path / POOLS).mkdir(exist_ok=True)
        (path / OPEN).mkdir(exist_ok=True)
        remove_unfinished(path / POOLS)  # of a process that was killed while it made the store
        try:
            state, recovered = _open_and_recover(path, limit=limit, durable=durable)
        except IndexDamaged:
            set_index_aside(path / INDEX, "damaged")
            state, recovered = _open_and_recover(path, limit=limit, durable=durable)
    return Opened(state, recovered, codec)


def _open_and_recover(path: Path, *, limit: int | None, durable: bool) -> tuple[State, Recovered]:
    state = _open_state(path, limit=limit, durable=durable)
    recovered = Recovered()
    try:
        with contextlib.suppress(StoreFull):  # then what is there can still be read
            recovered = recover(state)
            if limit is not None:
                with state.transaction() as transaction:
                    make_all_room(state, transaction, limit)
    except BaseException:
        state.close()
        raise
    return state, recovered


def _open_state(path: Path, *, limit: int | None, durable: bool) -> State:
    index = path / INDEX
    group = read_group(path / POOLS)
    if group is not None and group.get("format") != FORMAT_VERSION:
        raise wrong_format(path, group.get("format"))
    store_id = None if group is None else group.get("store")
    state = _try_index(path, limit, durable, store_id)
    if group is not None and state.index.store_id() != store_id:
        state.close()
        set_index_aside(index, "foreign")
        state = _try_index(path, limit, durable, store_id)
    if group is None:
        write_group(path / POOLS, state.index.store_id())
        if durable:
            sync_folder(path / POOLS)
            sync_folder(path)
    return state


def _try_index(path: Path, limit: int | None, durable: bool, store_id: str | None) -> State:
    state = State(path, limit=limit, durable=durable, store_id=store_id)
    try:
        state.index.store_id()
        state.sync()
    except BaseException:
        state.close()
        raise
    return state


@contextlib.contextmanager
def folder_lock(path: Path) -> Iterator[None]:
    """Let one process at a time open a store, and only in a folder that is one or empty."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = path / "lock"
        names = os.listdir(path)
        if names and lock.name not in names:
            raise StoreError(
                f"{path} holds other things than a feature store; choose an empty or a new folder"
            )
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"{path} is not a folder; choose another place for the store") from error
    except OSError as error:
        raise StoreError(
            f"the store at {path} is not writable ({error.strerror}); choose another folder "
            "(--store), or ask for the right to write"
        ) from error
    try:
        wait_for_lock(fd, f"opening {path}")
        with disk_errors(path):
            yield
    finally:
        os.close(fd)
