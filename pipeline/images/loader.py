"""Feed decoded images to the backbone: threads decode while it computes.

Pillow lets go of the interpreter lock while it decodes and scales, so that threads are as fast as
processes. They see the same memory: pixels need no room in /dev/shm, nothing is forked beside
threads that may hold a lock, and no worker can be killed alone or outlive the run.
"""

import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

import numpy as np
import torch

from .decode import ImageError, content_hash, decode, read_file

_MOST_WORKERS = 8
_AHEAD = 2  # batches for each worker that may wait to be taken

Job = TypeVar("Job")
Result = TypeVar("Result")
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Decoded:
    """One batch of decoded images.

    `pixels` is uint8 [n, height, width, 3], row k being image ``indices[k]``; `failures` maps the
    indices of the batch's other images to what is wrong with them.
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
    """Work through batches of jobs in threads that run ahead of the caller.

    Every thread ends when the iterator is exhausted, fails or is closed, after the job that it is
    at.

    Parameters
    ----------
    work
        Called with each job, in any thread and in any order.
    gather
        Called with the results of a batch, in the order of its jobs, in any thread.
    batches
        Taken one after another in the caller's thread, `_AHEAD` for each worker in advance.
    workers
        Threads; 0 works in the caller's. Where the system starts no more of them, the caller's
        thread does what they cannot, and a `RuntimeWarning` says so.

    Yields
    ------
    Batch
        What `gather` returned, in the order of the batches.

    Raises
    ------
    Exception
        What `work` or `gather` raised, at the place of its batch.
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
    try:
        for batch in batches:
            try:
                waiting.append(pool.submit(do, batch))
            except RuntimeError as error:  # of the system: no more threads
                warnings.warn(
                    f"no thread to decode in ({error}): decoding goes on in the main thread; "
                    "--workers 0 does so from the start",
                    RuntimeWarning,
                    stacklevel=2,
                )
                waiting.append(Future())
                waiting[-1].set_result(do(batch))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def decode_files(
    files: Sequence[tuple[str, bytes]],
    size: tuple[int, int],
    batch: int,
    workers: int | None = None,
) -> Iterator[Decoded]:
    """Decode image files in threads, batch by batch, in the order given.

    Parameters
    ----------
    files
        (path, content hash) of each image. The hash is checked against the bytes that are
        decoded; a file that changed meanwhile counts as failed.
    size
        (height, width) of the decoded images.
    batch
        Images in a batch; the last one may be smaller.
    workers
        Decoding threads; 0 decodes in the caller's, None takes one for each core (8 at most), and
        none where a single batch holds everything.
    """
    if workers is None:
        workers = cores() if len(files) > batch else 0
    batches = [range(start, len(files))[:batch] for start in range(0, len(files), batch)]

    def pixels_of(index: int) -> tuple[int, np.ndarray | str]:
        """Return the pixels of a file, or the words that say why there are none."""
        path, content = files[index]
        try:
            data = read_file(path)
            if content_hash(data) != content:  # a row must never lie under another image's key
                return index, "the file changed during the run; run again"
            return index, decode(data, size)
        except ImageError as error:
            return index, str(error)

    def gather(items: list[tuple[int, np.ndarray | str]]) -> Decoded:
        images = {index: image for index, image in items if not isinstance(image, str)}
        pixels = np.stack([*images.values()]) if images else np.empty((0, *size, 3), np.uint8)
        failures = {index: image for index, image in items if isinstance(image, str)}
        return Decoded(list(images), torch.from_numpy(pixels), failures)

    with closing(ahead(pixels_of, gather, batches, min(workers, len(batches)))) as decoded:
        yield from decoded


def cores() -> int:
    """Return for how many decoding threads there are cores, 8 at most."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(count or 1, _MOST_WORKERS)


def decode_arrays(
    pixels: Mapping[bytes, torch.Tensor], contents: Sequence[bytes], batch: int
) -> Iterator[Decoded]:
    """Batch images that are in memory already: the counterpart of `decode_files`."""
    for start in range(0, len(contents), batch):
        indices = list(range(start, min(start + batch, len(contents))))
        yield Decoded(indices, torch.stack([pixels[contents[i]] for i in indices]), {})
