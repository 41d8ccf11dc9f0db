"""Progress reports and timings of stages: a callback and a stopwatch."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, int, int], None]
"""``report(stage, done, total)``: called by a stage whenever it makes progress."""


def silent(stage: str, done: int, total: int) -> None:
    """Do nothing (the default `report` callback)."""


class Stopwatch:
    """Seconds spent in each named stage, summed over all visits.

    A stage is timed in the thread that enters it. The work of other threads, such as those that
    decode, shows only as the time spent waiting for them.
    """

    def __init__(self, *stages: str) -> None:
        self.seconds = dict.fromkeys(stages, 0.0)
        self._lock = threading.Lock()
        self._local = threading.local()
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time spent inside the ``with`` block to `stage`, excluding nested stages."""
        if getattr(self._local, "aside", False):
            yield
            return
        start = time.perf_counter()
        outside, self._local.inside = getattr(self._local, "inside", 0.0), 0.0
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            own = elapsed - self._local.inside
            self._local.inside = outside + elapsed
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + own

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Count nothing in this thread meanwhile: another thread counts its waiting for it."""
        self._local.aside = True
        try:
            yield
        finally:
            self._local.aside = False

    def total(self) -> float:
        """Return the seconds since the stopwatch was created."""
        return time.perf_counter() - self._start
