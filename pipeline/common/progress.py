"""How far a stage is and where the time goes: told through a function, measured by a stopwatch."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, int, int], None]
"""``report(stage, done, total)``: called by a stage each time that it has got further."""


def silent(stage: str, done: int, total: int) -> None:
    """Report to nobody."""


class Stopwatch:
    """Seconds spent in each named stage, added up over all visits.

    Stages are timed by the process that runs the backbone and the products. What decoding workers
    do meanwhile shows only as the time that this process had to wait for them.
    """

    def __init__(self, *stages: str) -> None:
        self.seconds = dict.fromkeys(stages, 0.0)
        self._lock = threading.Lock()
        self._local = threading.local()
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time spent inside the ``with`` block to `stage`, less that of stages within."""
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

    def total(self) -> float:
        """Seconds since the stopwatch was made."""
        return time.perf_counter() - self._start
