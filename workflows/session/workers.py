"""The workers of a cluster during a run: how many there are, and how many bytes they move."""

import time
from collections import deque
from typing import Any

from ...cache.errors import LpipstoreError
from .screen import Screen
from .settings import show_bytes

_COUNT_S = 2.0  # how often workers are counted
_RECENT_S = 10.0  # over which bytes per second are counted


class Workers:
    """The workers of a client, counted now and then, and the bytes of their tasks.

    Parameters
    ----------
    client
        A ``distributed.Client``.
    ours
        Whether this process started them, and nobody else will start others.
    alone_s
        Seconds after which ours do not come back.
    """

    def __init__(self, client: Any, screen: Screen, *, ours: bool, alone_s: float) -> None:  # noqa: ANN401
        self._client, self._screen = client, screen
        self._seen, self._alive, self._when, self._alone = 1, 1, 0.0, 0.0
        self._ours, self._alone_s = ours, alone_s
        self._bytes: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def count(self) -> int:
        """Return how many tasks run side by side, at least 1."""
        now = time.monotonic()
        if now - self._when > _COUNT_S:
            self._seen, self._when = self._threads(), now
        return max(1, self._seen)

    def moved(self, count: int) -> None:
        """Count bytes that a task has read, written or returned."""
        now = time.monotonic()
        self._bytes.append((now, self._bytes[-1][1] + count))
        while len(self._bytes) > 2 and now - self._bytes[1][0] > _RECENT_S:
            self._bytes.popleft()

    def line(self) -> str:
        """Return how many workers there are, and the bytes per second of the last tasks."""
        self.count()
        (began, before), (ended, after) = self._bytes[0], self._bytes[-1]
        rate = (
            f", {show_bytes(round((after - before) / max(ended - began, 1e-3)))}/s" if after else ""
        )
        return f"{self._alive:,} worker{'' if self._alive == 1 else 's'}{rate}"

    def look(self) -> None:
        """Warn if there are no workers any more; stop if asked to, or if ours do not come back."""
        if self._screen.stopped_by is not None:
            raise KeyboardInterrupt
        if self._threads():
            self._alone = 0.0
            return
        now = time.monotonic()
        self._alone = self._alone or now
        if self._ours and now - self._alone > self._alone_s:
            raise LpipstoreError(
                "all workers have ended: the same command goes on from what is finished"
            )
        if not self._ours:
            self._screen.warn("the Dask scheduler has no workers left: waiting for some to come")

    def _threads(self) -> int:
        try:
            threads = self._client.nthreads()
        except (OSError, TimeoutError) as error:
            raise LpipstoreError(
                "the Dask scheduler is gone: start it again and give the same command, which goes "
                "on from what is finished"
            ) from error
        self._alive = len(threads)
        return sum(threads.values())
