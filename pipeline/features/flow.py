"""From decoded images to stored rows: on a device, copying, computing and storing overlap.

While one batch is decoded, an earlier one is on its way to the device, an earlier one goes through
the trunk there, and a thread waits for the rows of the oldest and stores them. Three batches at
most are between decoding and the store. On a CPU, the trunk takes all cores: a batch is stored
before the next one is computed.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..common.pools import submit
from ..common.progress import Stopwatch
from ..images.loader import Decoded
from .extractor import Extractor, extract_rows
from .on_device import Arriving, DeviceTrunk, out_of_memory

Rows = NDArray[np.generic]
Keep = Callable[[Sequence[int], Rows], None]
"""``keep(indices, rows)``: called with the rows of each batch, in order, perhaps in a thread."""
Fail = Callable[[Mapping[int, str]], None]
"""``fail(failures)``: called with the reasons why images cannot be decoded, by index."""
Which = TypeVar("Which")
Computing = Generator[tuple[Which, Rows], None, None]
"""Yields which images were computed, and their rows. Close it, to wait for what is under way."""

_UNDER_WAY = 3  # batches: one is stored, one computed, one copied
_DECODED = 32  # images that a thread decodes at a time


def decoded_at_once(extractor: Extractor) -> int:
    """Return how many images to decode as one batch: those of a device are joined from several."""
    batch = extractor.batch
    return batch if extractor.on_device is None else batch // -(-batch // _DECODED)


def compute_rows(
    extractor: Extractor,
    batches: Iterator[Decoded],
    count: int,
    keep: Keep,
    fail: Fail,
    clock: Stopwatch,
) -> Computing[Sequence[int]]:
    """Compute the rows of decoded images and keep them.

    Parameters
    ----------
    extractor
        Computes the rows.
    batches
        Decoded images, `decoded_at_once` of them at a time.
    count
        Images in all batches.
    keep, fail
        Take rows, and what there are no rows of.
    clock
        Counts how long the caller waits for each part: ``decode``, ``copy`` (of pixels into
        page-locked memory), ``forward`` (until rows are there) and, on a device, ``write`` (until
        they are stored).

    Yields
    ------
    indices, rows
        Of images whose rows `keep` has taken. The next batch may overwrite the rows.

    Raises
    ------
    LpipstoreError
        There is no memory for one image, or a value is not finite.
    Exception
        What decoding or `keep` raised. What is under way by then is kept, as after an interrupt.
    """
    decoded = _decoded(extractor, batches, fail, clock)
    if extractor.on_device is None:
        return _here(extractor, decoded, count, keep, clock)
    together = joined(decoded, extractor.batch)
    return _there(extractor, extractor.on_device, together, keep, clock)


def _decoded(
    extractor: Extractor, batches: Iterator[Decoded], fail: Fail, clock: Stopwatch
) -> Iterator[Decoded]:
    """Wait for decoded images; yield the batches that have any."""
    while True:
        with clock("decode"), extractor.memory_errors():
            decoded = next(batches, None)
        if decoded is None:
            return
        fail(decoded.failures)
        if decoded.indices:
            yield decoded


def _here(
    extractor: Extractor, batches: Iterable[Decoded], count: int, keep: Keep, clock: Stopwatch
) -> Computing[Sequence[int]]:
    room = np.empty((min(count, extractor.batch), extractor.layout.length), extractor.spec.dtype)
    for decoded in batches:
        with clock("load"):
            _ = extractor.backbone.trunk
        # Always on all of torch's threads: fewer give other bits for small batches
        with clock("forward"), extractor.memory_errors():
            rows = extract_rows(extractor, decoded.pixels, room)
        keep(decoded.indices, rows)
        yield decoded.indices, rows


def _there(
    extractor: Extractor,
    trunk: DeviceTrunk,
    batches: Iterable[Decoded],
    keep: Keep,
    clock: Stopwatch,
) -> Computing[Sequence[int]]:
    most = _UNDER_WAY
    with closing(_UnderWay(keep, clock)) as under_way:
        for decoded in batches:
            with clock("load"), extractor.memory_errors():
                _ = extractor.backbone.trunk
            start = 0
            while start < len(decoded.indices):
                yield from under_way.down_to(most - 1)
                part = slice(start, start + trunk.at_once)
                indices, pixels = decoded.indices[part], decoded.pixels[part]
                arriving = _begun(trunk, pixels, clock)
                if arriving is None:  # from now on, a batch has the device for itself
                    most = 1
                    yield from under_way.down_to(0)
                    trunk.device.forget()
                    with clock("forward"), extractor.memory_errors():
                        arriving = _there_already(trunk.rows(pixels))
                under_way.add(indices, arriving)
                start += len(indices)
        yield from under_way.down_to(0)


def _begun(trunk: DeviceTrunk, pixels: torch.Tensor, clock: Stopwatch) -> Arriving | None:
    """Start to compute rows; None if the device has no memory beside what is under way."""
    try:
        with clock("copy"):
            placed = trunk.place(pixels)
        with clock("forward"):
            return trunk.begin(placed)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    return None


def _there_already(rows: Rows) -> Arriving:
    return lambda: rows


class _UnderWay:
    """Batches on a device, and the thread that waits for their rows and stores them in order."""

    def __init__(self, keep: Keep, clock: Stopwatch) -> None:
        self._keep = keep
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "lpipstore-store")
        self._batches: deque[tuple[Sequence[int], Future[Rows], Future[None]]] = deque()

    def add(self, indices: Sequence[int], arriving: Arriving) -> None:
        """Take a batch that the device computes."""

        def arrive(arriving: Arriving) -> Rows:
            with self._clock.aside():
                return arriving()

        def keep(arrived: Future[Rows]) -> None:
            with self._clock.aside():
                self._keep(indices, arrived.result())

        arrived = submit(self._thread, arrive, arriving)
        self._batches.append((indices, arrived, submit(self._thread, keep, arrived)))

    def down_to(self, most: int) -> Iterator[tuple[Sequence[int], Rows]]:
        """Wait until at most `most` batches are under way; yield the stored ones, oldest first."""
        while self._batches and (len(self._batches) > most or self._batches[0][2].done()):
            indices, arrived, kept = self._batches.popleft()
            with self._clock("forward"):
                rows = arrived.result()
            with self._clock("write"):
                kept.result()
            yield indices, rows

    def close(self) -> None:
        """Wait until what is under way is stored; nobody asks for its errors any more."""
        self._thread.shutdown()


def joined(batches: Iterable[Decoded], most: int) -> Iterator[Decoded]:
    """Join successive batches of pixels of one dtype, as long as they have `most` images or less.

    Their failures are left out.
    """
    parts: list[Decoded] = []
    count = 0
    for decoded in batches:
        other = parts and parts[0].pixels.dtype != decoded.pixels.dtype
        if parts and (other or count + len(decoded.indices) > most):
            yield _join(parts)
            parts, count = [], 0
        parts.append(decoded)
        count += len(decoded.indices)
        if count >= most:
            yield _join(parts)
            parts, count = [], 0
    if parts:
        yield _join(parts)


def _join(parts: Sequence[Decoded]) -> Decoded:
    if len(parts) == 1:
        return parts[0]
    indices = [index for part in parts for index in part.indices]
    return Decoded(indices, torch.cat([part.pixels for part in parts]), {})
