"""Pins: a run's hold on the segments of the rows that it needs, renewed while the run is alive."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from .index import Transaction
from .keytable import segment_of
from .leases import LEASE_S, end_lease, enter_lease, pin_segments, renew_lease, unpin_segments
from .state import State

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
        self._lease = enter_lease(transaction, self.run)
        self._pinned = self._segments(state)
        self._renewed = time.monotonic()
        pin_segments(transaction, self._lease, sorted(self._pinned))

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
            end_lease(transaction, self._lease)
        self._ended = True
        self._needed.clear()
        if self in state.pins:
            state.pins.remove(self)

    def _adjust(self, state: State) -> None:
        with state.transaction() as transaction:
            still = self._segments(state)
            unpin_segments(transaction, self._lease, sorted(self._pinned - still))
            pin_segments(transaction, self._lease, sorted(still - self._pinned))
            self._pinned = still

    def renew(self, state: State, transaction: Transaction) -> None:
        """Renew the lease when it is due; if it was ended meanwhile, begin a new one."""
        now = time.monotonic()
        if now - self._renewed > LEASE_S / 10:
            if not renew_lease(transaction, self._lease):  # after a long suspension, for example
                self._enter(state, transaction)
            self._renewed = now

    def keep(self, transaction: Transaction, segment: int, keys: Sequence[bytes]) -> None:
        """Pin a segment if rows just added to it are among those that the run needs."""
        if segment not in self._pinned and not self._needed.isdisjoint(keys):
            pin_segments(transaction, self._lease, [segment])
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
