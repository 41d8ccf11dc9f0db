"""Pins: a run's hold on the segments of the rows that it needs.

A pin is a lease of its process in the index, with the segments that it protects from eviction. The
lease ends with the process; a process that cannot be looked up has to renew it.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from .index import Transaction
from .keytable import segment_of
from .state import State

LEASE_S = 300  # a lease whose process cannot be looked up ends this long after its last renewal

OnState = Callable[[Callable[[State], None]], None]  # calls a function with the open store's state


class Pin:
    """Protects the segments of some keys from eviction, including keys that are put later.

    Created by `FeatureStore.pin`. As a context manager it releases the pin on exit. The pin also
    ends with its process, even if the process is killed.
    """

    def __init__(self, state: State, on_state: OnState, run: str, keys: Iterable[bytes]) -> None:
        self.run = run
        self._on_state = on_state
        self._pid = os.getpid()
        self._needed = set(keys)
        self._ended = False
        self.attach(state)

    def attach(self, state: State) -> None:
        """Begin a lease in an index, and pin the segments that already hold some of the keys."""
        with state.transaction() as transaction:
            self._enter(state, transaction)
        state.pins.append(self)

    def _enter(self, state: State, transaction: Transaction) -> None:
        self._lease = _enter_lease(transaction, self.run)
        self._pinned = self._segments(state)
        self._renewed = time.monotonic()
        _pin_segments(transaction, self._lease, sorted(self._pinned))

    def release(self, keys: Iterable[bytes] | None = None) -> None:
        """Release keys that the run no longer needs; without `keys`, end the pin."""
        if self._ended or self._pid != os.getpid():  # a forked child must not end its parent's pin
            return
        if keys is None:
            self._on_state(self._end)
            return
        self._needed.difference_update(keys)
        self._on_state(self._adjust)

    def _end(self, state: State) -> None:
        with state.transaction() as transaction:
            _end_lease(transaction, self._lease)
        self._ended = True
        self._needed.clear()
        if self in state.pins:
            state.pins.remove(self)

    def _adjust(self, state: State) -> None:
        with state.transaction() as transaction:
            still = self._segments(state)
            _unpin_segments(transaction, self._lease, sorted(self._pinned - still))
            _pin_segments(transaction, self._lease, sorted(still - self._pinned))
            self._pinned = still

    def renew(self, state: State, transaction: Transaction) -> None:
        """Renew the lease when it is due; if it was ended meanwhile, begin a new one."""
        now = time.monotonic()
        if now - self._renewed > LEASE_S / 10:
            if not _renew_lease(transaction, self._lease):  # after a long suspension, for example
                self._enter(state, transaction)
            self._renewed = now

    def keep(self, transaction: Transaction, segment: int, keys: Sequence[bytes]) -> None:
        """Pin a segment if rows just added to it are among those that the run needs."""
        if segment not in self._pinned and not self._needed.isdisjoint(keys):
            _pin_segments(transaction, self._lease, [segment])
            transaction.then(lambda: self._pinned.add(segment))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _segments(self, state: State) -> set[int]:
        places, _ = state.find(list(self._needed))
        return {segment_of(place) for place in places[places >= 0].tolist()}


def _enter_lease(transaction: Transaction, run: str) -> int:
    """Begin a lease of this process for a run, and return the lease's id."""
    pid = os.getpid()
    cursor = transaction.execute(
        "INSERT INTO leases (run, pid, started, space, beat) VALUES (?, ?, ?, ?, ?)",
        (run, pid, _started(pid) or "", _process_space(), int(time.time())),
    )
    return int(cursor.lastrowid or 0)


def _renew_lease(transaction: Transaction, lease: int) -> bool:
    """Record that the process of a lease is alive; return False if the lease has been ended."""
    beat = int(time.time())
    renewed = transaction.execute("UPDATE leases SET beat = ? WHERE id = ?", (beat, lease))
    return renewed.rowcount > 0


def _pin_segments(transaction: Transaction, lease: int, segments: list[int]) -> None:
    """Keep segments from eviction while the lease lasts."""
    transaction.executemany(
        "INSERT OR IGNORE INTO pins (segment, lease) VALUES (?, ?)",
        [(segment, lease) for segment in segments],
    )


def _unpin_segments(transaction: Transaction, lease: int, segments: list[int]) -> None:
    """Remove a lease's pins on the given segments."""
    transaction.executemany(
        "DELETE FROM pins WHERE segment = ? AND lease = ?",
        [(segment, lease) for segment in segments],
    )


def _end_lease(transaction: Transaction, lease: int) -> None:
    """End a lease and remove all its pins."""
    transaction.execute("DELETE FROM pins WHERE lease = ?", (lease,))
    transaction.execute("DELETE FROM leases WHERE id = ?", (lease,))


def end_dead_leases(transaction: Transaction) -> int:
    """End the leases of dead processes; return how many leases were ended.

    A process on this machine and in this PID namespace is looked up by its PID and start time.
    Any other process counts as dead unless it renewed its lease within the last `LEASE_S` seconds.
    """
    here = _process_space()
    oldest = time.time() - LEASE_S
    dead = []
    for lease, pid, started, space, beat in transaction.execute(
        "SELECT id, pid, started, space, beat FROM leases"
    ).fetchall():
        alive = (_started(pid) or "") == started if space == here else beat >= oldest
        if not alive:
            dead.append(lease)
    for lease in dead:
        _end_lease(transaction, lease)
    # pins that a process added before it noticed that its lease had been ended
    transaction.execute("DELETE FROM pins WHERE lease NOT IN (SELECT id FROM leases)")
    return len(dead)


@cache
def _process_space() -> str:
    """Return a name for this boot and PID namespace, within which a PID identifies a process.

    Without ``/proc`` the name is unique to this process, so that no other looks up its PID.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown/{os.getpid()}/{time.time_ns()}"


def _started(pid: int) -> str | None:
    """Return when a process started, in ticks after boot; None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()  # a program's name may contain spaces and brackets
    return None if fields[0] == b"Z" else fields[19].decode()
