"""Decode images in threads while the backbone computes.

Pillow releases the interpreter lock while it decodes and scales, so threads are as fast as
processes. They share memory: pixels need no space in /dev/shm, no process is forked while other
threads hold locks, and no worker can be killed on its own or outlive the run.
"""

import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from operator import itemgetter
from threading import Event
from typing import Any, TypeVar

import numpy as np
import torch

from ...cache.errors import LpipstoreWarning, setting
from ..common.by_value import ByValue
from ..common.pools import submit
from ..sources.source import ImageData, ImageError
from ..sources.sources import Sources
from .data import Pixels, prepared_pixels, read_unchanged
from .preparation import Preparation
from .read_ahead import ReadAhead, Reading

_MOST_WORKERS = 8
_AHEAD = 2  # batches in flight per worker

Prepare = Callable[[ImageData, Preparation], Pixels]
Job = TypeVar("Job")
Result = TypeVar("Result")
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Decoded(ByValue):
    """One batch of decoded images.

    `pixels` is [n, height, width, 3], where ``pixels[k]`` is the image ``indices[k]``: uint8, or
    float32 for floating-point arrays. `failures` maps the indices of the batch's other images to
    the reason for each failure.
    """

    indices: list[int]
    pixels: torch.Tensor
    failures: dict[int, str]


def ahead(
    work: Callable[[Job], Result],
    gather: Callable[[list[Result]], Batch],
    batches: Iterable[Sequence[Job]],
    workers: int,
) -> Generator[Batch, None, None]:
    """Process batches of jobs in threads that run ahead of the caller.

    When the iterator is exhausted, fails or is closed, each thread ends after its current job.

    Parameters
    ----------
    work
        Called with each job, in any thread and in any order.
    gather
        Called with the results of a batch, in the order of its jobs, in any thread.
    batches
        Consumed one after another in the caller's thread, `_AHEAD` per worker in advance.
    workers
        Number of threads; 0 works in the caller's thread. If the system cannot start more threads,
        the caller's thread takes over their work, with one `LpipstoreWarning`.

    Yields
    ------
    Batch
        What `gather` returned, in the order of the batches.

    Raises
    ------
    Exception
        What `work` or `gather` raised, when its batch is reached.
    """
    if not workers:
        for batch in batches:
            yield gather([work(job) for job in batch])
        return
    stop = Event()

    def do(batch: Sequence[Job]) -> Batch:
        results = []
        for job in batch:
            if stop.is_set():
                raise CancelledError  # nobody waits for this batch any more
            results.append(work(job))
        return gather(results)

    pool = ThreadPoolExecutor(workers, "lpipstore-decode")
    waiting: deque[Future[Batch]] = deque()
    warned = False

    def refused(error: RuntimeError) -> None:
        nonlocal warned
        if not warned:
            warnings.warn(_no_thread(error), stacklevel=4)
        warned = True

    try:
        for batch in batches:
            waiting.append(submit(pool, do, batch, refused))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _no_thread(error: RuntimeError) -> LpipstoreWarning:
    return LpipstoreWarning(
        f"no thread to decode in ({error}): decoding goes on in the main thread; "
        f"{setting('workers', 0)} does so from the start"
    )


@dataclass(frozen=True)
class Decoding:
    """How the images of a collection are decoded; called as `Features.decode`.

    Attributes
    ----------
    sources
        Opens the images.
    names
        The name of each image by its content hash.
    how
        Size, fit and colours of the decoded images.
    workers
        As for `decode_images`.
    """

    sources: Sources
    names: Mapping[bytes, str]
    how: Preparation
    workers: int | None = None

    def __call__(self, contents: Sequence[bytes], batch: int) -> Iterator[Decoded]:
        """Decode images, given by content hash, batch by batch."""
        images = [(self.names[content], content) for content in contents]
        return decode_images(images, self.sources, self.how, batch, self.workers)


def decode_batch(
    images: Sequence[tuple[str, bytes]],
    sources: Sources,
    how: Preparation,
    first: int = 0,
    read: Callable[[int], ImageData] | None = None,
    prepare: Prepare = prepared_pixels,
) -> list[Decoded]:
    """Decode one batch of images, in any thread or process.

    Parameters
    ----------
    images, sources, how
        As for `decode_images`.
    first
        The index of the first image in what is returned.
    read
        Returns the data of the image of an index, or raises `ImageError`; None reads it from
        `sources`.
    prepare
        As for `decode_images`.

    Returns
    -------
    list of Decoded
        One part for each dtype of pixels, the failures with the first.
    """

    def decoded(index: int) -> Pixels | str:
        """Return the pixels of an image, or the reason why there are none."""
        try:
            data = read_unchanged(sources, *images[index - first]) if read is None else read(index)
            return prepare(data, how)
        except ImageError as error:
            return str(error)

    return _gather([(index, decoded(index)) for index in range(first, first + len(images))])


def decode_images(
    images: Sequence[tuple[str, bytes]],
    sources: Sources,
    how: Preparation,
    batch: int,
    workers: int | None = None,
    prepare: Prepare = prepared_pixels,
) -> Iterator[Decoded]:
    """Decode images in threads, batch by batch, in the order given.

    Images of a sequential source are read in that order by one more thread, those behind URLs by
    many at the same time, whatever `workers` says.

    Parameters
    ----------
    images
        (name, content hash) of each image. The hash is checked against what is read; an image that
        changed since then counts as failed.
    sources
        Opens the images.
    how
        Size, fit and colours of the decoded images.
    batch
        Images per batch; the last one may be smaller. A batch with both uint8 and floating-point
        images comes in two parts.
    workers
        Decoding threads; 0 decodes in the caller's thread. None takes one per core (8 at most), or
        0 if one batch holds all images.
    prepare
        Makes the pixels: those of rows by default, or `thumbnail_pixels`.
    """
    if workers is None:
        workers = cores() if len(images) > batch else 0
    batches = [range(start, len(images))[:batch] for start in range(0, len(images), batch)]
    workers = min(workers, len(batches))
    stop = Event()

    def read(index: int) -> ImageData:
        if stop.is_set():
            raise CancelledError  # nobody waits for this batch any more
        return read_unchanged(sources, *images[index])

    def read_prepared(index: int) -> ImageData:
        """Read for later: pixels wait in memory, so they are scaled first."""
        data = read(index)
        return data if isinstance(data, bytes) else torch.from_numpy(prepare(data, how))

    def decode(job: tuple[range, Sequence[Reading | None]]) -> list[Decoded]:
        indices, readings = job

        def begun(index: int) -> ImageData:
            reading = readings[index - indices.start]
            return read(index) if reading is None else reading.result()

        part = images[indices.start : indices.stop]
        return decode_batch(part, sources, how, indices.start, begun, prepare)

    with ReadAhead(sources, read_prepared) as reader:

        def begin(index: int) -> Reading | None:
            name = images[index][0]
            return reader.begin(name, index) if workers or sources.remote(name) else None

        jobs = ([(indices, [begin(index) for index in indices])] for indices in batches)
        with closing(ahead(decode, itemgetter(0), jobs, workers)) as gathered:
            try:
                for parts in gathered:
                    yield from parts
            finally:
                stop.set()
                reader.stop()


def _gather(items: Sequence[tuple[int, Pixels | str]]) -> list[Decoded]:
    """Return the images of a batch as one part for each dtype, the failures with the first."""
    failures = {index: image for index, image in items if isinstance(image, str)}
    parts: dict[np.dtype[Any], dict[int, Pixels]] = {}
    for index, image in items:
        if not isinstance(image, str):
            parts.setdefault(image.dtype, {})[index] = image
    if not parts:
        return [Decoded([], torch.empty(0, dtype=torch.uint8), failures)]
    return [
        Decoded(
            [*images], torch.from_numpy(np.stack([*images.values()])), {} if number else failures
        )
        for number, images in enumerate(parts.values())
    ]


def cores() -> int:
    """Return the number of decoding threads: one per available core, 8 at most."""
    return min(available_cores(), _MOST_WORKERS)


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def decode_arrays(
    pixels: Mapping[bytes, torch.Tensor], contents: Sequence[bytes], batch: int
) -> Iterator[Decoded]:
    """Batch images that are in memory already; the counterpart of `decode_images`."""
    for start in range(0, len(contents), batch):
        indices = list(range(start, min(start + batch, len(contents))))
        yield Decoded(indices, torch.stack([pixels[contents[i]] for i in indices]), {})
