"""Rows in memory by plan: those that a step needs, and perhaps one part of those of the next."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

from ..common.pools import submit

Part = TypeVar("Part", bound=Hashable)
Rows = TypeVar("Rows")


class HeldRows(Generic[Part, Rows]):
    """Parts of the rows of a collection, in memory for as long as successive steps need them.

    Nothing is evicted on a guess: a plan knows what fits, and what each step needs. For rows that
    are asked for by number, in no order that is known beforehand, there is
    `lpipstore.pipeline.features.rowcache`.

    Parameters
    ----------
    load
        Returns the rows of a part, or where they lie.
    stored
        Whether a part can be read without forward passes. Such parts of the next step are read
        while this one is computed; None reads nothing ahead.
    """

    def __init__(
        self,
        load: Callable[[Part], Rows],
        stored: Callable[[Part], bool] | None = None,
    ) -> None:
        self._load, self._stored = load, stored
        self._held: dict[Part, Rows] = {}
        self._coming: dict[Part, Future[Rows]] = {}
        self._reader: ThreadPoolExecutor | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Run a thread that reads ahead; without it, nothing is. All rows are let go at the end."""
        try:
            with ThreadPoolExecutor(1, "lpipstore-rows") as self._reader:
                yield
        finally:
            self._reader = None
            self._held.clear()
            self._coming.clear()

    def get(self, needed: Sequence[Part], soon: Sequence[Part] = ()) -> list[Rows]:
        """Return the rows of the parts that a step needs; `soon` are those of the next step.

        All other rows are let go before any are loaded, so that callers must not keep them.
        """
        for part in self._held.keys() - set(needed):
            del self._held[part]
        for part in needed:
            if part not in self._held:
                coming = self._coming.pop(part, None)
                self._held[part] = self._load(part) if coming is None else coming.result()
        if self._stored is not None and self._reader is not None:
            for part in set(soon) - set(needed):
                if self._stored(part):  # a forward would slow the step down
                    self._coming[part] = submit(self._reader, self._load, part)
        return [self._held[part] for part in needed]
