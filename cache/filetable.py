"""Content hashes of files read before, so that unchanged files need not be read again."""

from collections.abc import Sequence

from .eviction import make_all_room
from .index import FileIdentity, FileRecord
from .state import State

_BATCH = 500  # paths in one query
_RACY_NS = 2_000_000_000  # as in git: some file systems store times this coarsely
_MOST_FILES = 4_000_000
_SHARE_OF_LIMIT = 8
_BYTES_EACH = 256  # of one entry in the index, with a long path


def recall(state: State, files: Sequence[FileIdentity]) -> list[FileRecord | None]:
    """Return the record of each file, None if the file is unknown or has changed."""
    known: dict[FileIdentity, FileRecord] = {}
    with state.index.reading() as connection:
        for start in range(0, len(files), _BATCH):
            paths = [file.path for file in files[start : start + _BATCH]]
            marks = ",".join("?" * len(paths))
            for path, size, mtime_ns, inode, content, note in connection.execute(
                "SELECT path, size, mtime_ns, inode, content, note FROM files "
                f"WHERE path IN ({marks})",
                paths,
            ):
                identity = FileIdentity(path, size, mtime_ns, inode)
                known[identity] = FileRecord(content, note)
    return [known.get(file) for file in files]


def remember(state: State, entries: Sequence[tuple[FileIdentity, FileRecord]]) -> None:
    """Keep records of files; see `FeatureStore.remember_files`.

    The oldest entries are removed once the entries would take more than an eighth of the store's
    limit.
    """
    rows = [
        (file.path, file.size, file.mtime_ns, file.inode, record.content, record.note)
        for file, record in entries
        if file.mtime_ns < file.seen_ns - _RACY_NS
    ]
    if not rows:
        return
    most = _MOST_FILES
    if state.limit is not None:
        most = min(most, max(100, state.limit // _SHARE_OF_LIMIT // _BYTES_EACH))
    at_once = state.log_pages  # each entry may change a page, and the log must stay short
    for start in range(0, len(rows), at_once):
        with state.transaction() as transaction:
            transaction.executemany(
                "INSERT OR REPLACE INTO files (path, size, mtime_ns, inode, content, note) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                rows[start : start + at_once],
            )
            transaction.execute(
                "DELETE FROM files WHERE id <= (SELECT max(id) FROM files) - ?", (most,)
            )
            if state.limit is not None:
                make_all_room(state, transaction, state.limit)
