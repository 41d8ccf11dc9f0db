"""Read images before a thread decodes them: in order, or many at the same time over a network."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from types import TracebackType
from typing import TypeAlias

from ..common.pools import submit
from ..sources.formats.objects import REQUESTS
from ..sources.source import ImageData
from ..sources.sources import Sources

_ROOM = 256_000_000  # bytes of images from a network that wait to be decoded

Read: TypeAlias = Callable[[int], ImageData]


class Reading:
    """An image that is being read."""

    def __init__(self, future: Future[ImageData], release: Callable[[], None]) -> None:
        self._future = future
        self._release = release

    def result(self) -> ImageData:
        """Wait for the image; raise what reading it raised. Its room is free for others then."""
        try:
            return self._future.result()
        finally:
            self._release()


class ReadAhead:
    """Threads that read images ahead of those that decode them.

    Images of a sequential source are read in order by one thread. Of images behind URLs, as many
    are under way as is worth it and as have room; the others are left to the thread that decodes
    them, so that no thread ever waits for room.

    Parameters
    ----------
    sources
        Opens the images.
    read
        Reads an image by its number.
    """

    def __init__(self, sources: Sources, read: Read) -> None:
        self._sources = sources
        self._read = read
        self._in_order = ThreadPoolExecutor(1, "lpipstore-read")
        self._remote = ThreadPoolExecutor(REQUESTS, "lpipstore-request")
        self._lock = Lock()
        self._left = _ROOM

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(wait=True)

    def stop(self, *, wait: bool = False) -> None:
        """Start no more reads; wait for the running ones if asked to."""
        for pool in (self._in_order, self._remote):
            pool.shutdown(wait, cancel_futures=True)

    def begin(self, name: str, index: int) -> Reading | None:
        """Begin to read image number `index`; None leaves it to the thread that decodes it."""
        if self._sources.sequential(name):
            return Reading(submit(self._in_order, self._read, index), lambda: None)
        if not self._sources.remote(name):
            return None
        size = self._sources.size(name)
        if not self._take(size):
            return None
        return Reading(submit(self._remote, self._read, index), lambda: self._give(size))

    def _take(self, size: int) -> bool:
        with self._lock:
            fits = size <= self._left
            self._left -= size if fits else 0
            return fits

    def _give(self, size: int) -> None:
        with self._lock:
            self._left += size
