"""Uses of segments and counters that a process has not saved in the index yet."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable

from .index import Transaction


class Usage:
    """Collects uses of segments and counts; the next transaction saves them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._used: dict[int, int] = {}
        self._counts: Counter[str] = Counter()
        self._saved = time.monotonic()

    def touch(self, segments: Iterable[int]) -> None:
        """Record a use of segments."""
        now = next(self._order)
        with self._lock:
            self._used.update(dict.fromkeys(segments, now))

    def count(self, **counts: int) -> None:
        """Add to the store's counters."""
        with self._lock:
            self._counts.update(counts)

    def forget(self, segments: Iterable[int]) -> None:
        """Forget the uses of segments that are gone."""
        with self._lock:
            for segment in segments:
                self._used.pop(segment, None)

    def is_due(self, after: float) -> bool:
        """Return whether something is to be saved, and the last save is `after` seconds ago."""
        return bool(self._used or self._counts) and time.monotonic() - self._saved >= after

    def save(self, transaction: Transaction) -> None:
        """Save everything; if the transaction fails, it stays for the next one."""
        with self._lock:
            used, counts = dict(self._used), Counter(self._counts)
        if used:
            first = next_use(transaction) - min(used.values())
            transaction.executemany(
                "UPDATE segments SET used = ? WHERE id = ?",
                [(first + when, segment) for segment, when in used.items()],
            )
        if counts:
            add_counts(transaction, **counts)

        def saved() -> None:
            with self._lock:
                self._counts = self._counts - counts
                for segment, when in used.items():
                    if self._used.get(segment) == when:
                        del self._used[segment]
                self._saved = time.monotonic()

        transaction.then(saved)


def next_use(transaction: Transaction) -> int:
    """Return a number for a use of a segment, greater than those of all earlier uses.

    Eviction goes by these numbers. Normally it is the time in nanoseconds; if the clock went back,
    one more than the greatest number so far.
    """
    newest = transaction.execute("SELECT max(used) FROM segments").fetchone()[0]
    return max(time.time_ns(), (newest or 0) + 1)


def add_counts(transaction: Transaction, **counts: int) -> None:
    """Add to the store's counters within a transaction."""
    transaction.executemany(
        "INSERT INTO counters VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        [(name, value) for name, value in counts.items() if value],
    )
