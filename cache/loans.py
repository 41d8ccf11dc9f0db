"""Segments that another process writes: lent by the coordinator, which enters them in the index.

The process that lends reserves the segment within the limit and holds the lock of its file. The one
that writes knows only a path: it appends rows and footer, and returns what they are. Then they are
entered and published in one transaction. If the writer dies, another one writes the same file
anew; if the coordinator dies, a recovery adopts files that are complete and removes the others.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .disk import disk_errors
from .errors import StoreError
from .eviction import reserve
from .footer import Contents, footer, read_footer
from .index import Transaction
from .keys import PoolSpec
from .pools import Segment, compressor
from .segmentfiles import open_local
from .segments import Written, split_keys, write_all, write_rows
from .staging import StagedFile
from .state import State
from .usage import next_use
from .writer import abandon_segment, enter_rows, is_sealed, publish


@dataclass(frozen=True)
class Loan:
    """A segment to be written, as plain data for another process.

    Attributes
    ----------
    path
        Its file.
    rows
        How many rows it has room for.
    row_bytes
        Of an uncompressed row.
    slots, codec
        Of its pool.
    durable
        Wait for the disk.
    """

    path: str
    rows: int
    row_bytes: int
    slots: int
    codec: str
    durable: bool

    def begin(self) -> int:
        """Note in the file that its rows are now being made; return how often they were before.

        While no row is written, the length of the file is the number of attempts.
        """
        with disk_errors(Path(self.path).parent.parent), self._opened() as fd:
            size = os.fstat(fd).st_size
            before = size if size < self.row_bytes else 1
            os.ftruncate(fd, before + 1)
        return before

    def found(self, keys: Sequence[bytes]) -> Written | None:
        """Return the rows that an earlier attempt has left complete; None unless all are there."""
        file = open_local(Path(self.path))
        contents = None if file is None else read_footer(file, self.slots)
        if contents is None or not _same_keys(contents, keys):
            return None
        return Written(contents.records, contents.sizes)

    def write(self, keys: Sequence[bytes], rows: NDArray[Any]) -> Written:
        """Write all rows and the footer; return what the coordinator has to enter.

        Raises
        ------
        StoreFull, StoreError
            The disk is full, or the file is not there.
        """
        packing = compressor() if self.codec else None
        # Whoever was taken for dead and writes the same rows after all changes nothing
        folder = Path(self.path).parent.parent
        with (
            disk_errors(folder),
            self._opened() as fd,
            ThreadPoolExecutor(1, "lpipstore") as helper,
        ):
            written = write_rows(fd, 0, list(rows), keys, packing, helper)
            contents = Contents.of([written])
            ending = footer(contents, self.slots)
            write_all(fd, [ending], contents.end, len(ending))
            os.ftruncate(fd, contents.end + len(ending))  # nothing behind it, as in preallocation
            if self.durable:
                os.fsync(fd)
        return written

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)


class Lender:
    """The segments that this process has lent, and not yet got back."""

    def __init__(self, state: State, codec: str) -> None:
        self.state = state
        self.codec = codec
        self._lock = threading.Lock()
        self._lent: dict[str, tuple[Segment, StagedFile]] = {}

    def lend(self, spec: PoolSpec, rows: int) -> Loan | None:
        """Reserve a segment for up to `rows` rows; None if the store has no room for it."""
        with self._lock, disk_errors(self.state.path):
            reserved = reserve(self.state, spec, self.codec, rows)
            if reserved is None:
                return None
            pool, path = reserved.segment.pool, str(reserved.file.path)
            self._lent[path] = reserved.segment, reserved.file
        return Loan(path, reserved.rows, pool.row_bytes, pool.slots, self.codec, self.state.durable)

    def accept(self, returned: Sequence[tuple[Loan, Written]]) -> list[bool]:
        """Enter and publish segments in one transaction; False for those that cannot be.

        Such a segment was removed meanwhile, or its file is not what the writer said.
        """
        with self._lock, disk_errors(self.state.path):
            taken = [self._lent.pop(loan.path, None) for loan, _ in returned]
            whole = [
                lent is not None and _is_whole(loan, written)
                for lent, (loan, written) in zip(taken, returned, strict=True)
            ]
            good = [
                (*lent, written)
                for lent, (_, written), ok in zip(taken, returned, whole, strict=True)
                if ok and lent is not None
            ]
            try:
                entered = self._enter(good)
            finally:
                for lent, ok in zip(taken, whole, strict=True):
                    if lent is not None:
                        if not ok:
                            abandon_segment(self.state, lent[0])
                        lent[1].close()
        rest = iter(entered)
        return [ok and next(rest) for ok in whole]

    def _enter(self, good: Sequence[tuple[Segment, StagedFile, Written]]) -> list[bool]:
        state = self.state
        if not good:
            return []
        try:
            with state.transaction() as transaction:
                return [self._enter_one(transaction, *each) for each in good]
        except BaseException:
            with contextlib.suppress(OSError, StoreError):  # may have come after the commit
                for segment, file, _ in good:
                    if not is_sealed(state, segment):
                        state.sealed.take_back(segment.key, file.path)
            raise

    def _enter_one(
        self, transaction: Transaction, segment: Segment, file: StagedFile, written: Written
    ) -> bool:
        state, rows = self.state, len(written.records)
        ours = transaction.execute(
            "UPDATE segments SET rows = ?, used = ? WHERE id = ? AND NOT sealed",
            (rows, next_use(transaction), segment.id),
        ).rowcount
        if not ours:
            return False
        entry = enter_rows(transaction, segment, 0, written)
        keys = Contents.of([written]).keys()
        for pin in state.pins:
            pin.keep(transaction, segment.id, keys)
        publish(state, transaction, segment, file)
        transaction.then(lambda: state.entered(entry, segment, 0, written.records))
        return True

    def take_back(self, loan: Loan) -> None:
        """Remove a segment that nobody will write."""
        with self._lock, disk_errors(self.state.path):
            lent = self._lent.pop(loan.path, None)
            if lent is not None:
                abandon_segment(self.state, lent[0])
                lent[1].close()

    def close(self) -> None:
        """Remove the segments that are still lent."""
        with self._lock:
            for segment, file in self._lent.values():
                with contextlib.suppress(StoreError, OSError):
                    abandon_segment(self.state, segment)
                file.close()
            self._lent.clear()

    def abandon(self) -> None:
        """Remove the files of lent segments: the index that knew them was replaced."""
        with self._lock:
            for segment, file in self._lent.values():
                with contextlib.suppress(OSError):
                    self.state.staging.remove(segment.open_name)
                file.close()
            self._lent.clear()


def _same_keys(contents: Contents, keys: Sequence[bytes]) -> bool:
    halves = np.stack([contents.records["hi"], contents.records["lo"]], axis=1)
    return np.array_equal(halves, split_keys(keys))


def _is_whole(loan: Loan, written: Written) -> bool:
    """Return whether a file, opened anew, ends with the footer of these rows."""
    file = open_local(Path(loan.path))
    contents = None if file is None else read_footer(file, loan.slots)
    return (
        contents is not None
        and np.array_equal(contents.records, written.records)
        and np.array_equal(contents.sizes, written.sizes)
    )
