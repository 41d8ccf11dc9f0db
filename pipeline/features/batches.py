"""Rows made by workers: a task decodes and forwards batches; each fills a lent segment."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.errors import StoreFull
from ...cache.loans import Loan
from ...cache.segments import Written
from ...cache.store import FeatureStore
from ..common.progress import Stopwatch
from ..common.tasks import Crew, Task, completed, threads
from ..images.loader import Decoded, Decoding, decode_images
from ..sources.names import absolute, split_given
from ..sources.source import SourceOptions
from ..sources.sources import Sources
from .extractor import Extractor, ExtractorSpec, extractor_of
from .stored import has_no_room

_TASK_BYTES = 8 << 20  # of the rows of a task: short ones would cost Dask more than the worker
_TASKS_EACH = 4  # at least, for each worker


@dataclass(frozen=True)
class Batch:
    """A batch of images for a worker, as plain data.

    Attributes
    ----------
    extractor, threads
        What makes the rows, and how many threads of torch it takes for the same bits as here.
    images
        (name, content hash) of each image.
    keys
        The key of each image's row.
    options
        How sources are read.
    loans
        The segments for the rows: several where the store's limit makes them small.
    """

    extractor: ExtractorSpec
    threads: int
    images: tuple[tuple[str, bytes], ...]
    keys: tuple[bytes, ...]
    options: SourceOptions
    loans: tuple[Loan, ...]


@dataclass(frozen=True)
class Made:
    """What became of a batch.

    Attributes
    ----------
    written
        The rows in the lent segments, of which the last ones may not have been needed.
    numbers
        The numbers of their images in the batch.
    failures
        Reasons by content hash of the image.
    forwards, again
        Images that this attempt sent through the trunk, and that earlier ones may have, whose
        worker died.
    """

    written: tuple[Written, ...] = ()
    numbers: list[int] = field(default_factory=list)
    failures: dict[bytes, str] = field(default_factory=dict)
    forwards: int = 0
    again: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the rows."""
        return sum(int(written.sizes.sum()) for written in self.written)


@lru_cache(maxsize=2)
def _sources_of(options: SourceOptions) -> Sources:
    return Sources(options)  # keeps archives open for the next batch


def make_rows(batch: Batch) -> Made:
    """Compute the rows of a batch, in any process that sees the images and the store's folder.

    A worker keeps the two extractors and sources that it used last.

    Raises
    ------
    LpipstoreError
        The weights are not there or are others, or values are not finite.
    StoreFull, StoreError
        The lent segment cannot be written.
    """
    count = len(batch.keys)
    shares = _shares(batch.loans, count)
    found = [loan.found(batch.keys[share]) for loan, share in shares]
    if None not in found:  # made by a worker that died before it could say so
        return Made(tuple(filter(None, found)), list(range(count)), forwards=count)
    before = batch.loans[0].begin()
    extractor = extractor_of(batch.extractor)
    how, sources = extractor.preparation, _sources_of(batch.options)
    parts = list(decode_images(batch.images, sources, how, count, workers=0))
    images = batch.images
    failures = {images[at][1]: why for part in parts for at, why in part.failures.items()}
    rows, numbers = rows_of(extractor, parts, batch.threads)
    if not numbers:
        return Made(failures=failures)
    keys = [batch.keys[number] for number in numbers]
    written = tuple(
        loan.write(keys[share], rows[share]) for loan, share in _shares(batch.loans, len(keys))
    )
    return Made(written, numbers, failures, len(numbers), before * len(numbers))


def rows_of(
    extractor: Extractor, parts: Sequence[Decoded], count: int
) -> tuple[NDArray[np.generic], list[int]]:
    """Compute the rows of a decoded batch on `count` threads; return them, and their indices."""
    numbers = [number for part in parts for number in part.indices]
    rows = np.empty((len(numbers), extractor.spec.length), extractor.spec.dtype)
    done = 0
    with threads(count), extractor.memory_errors():
        for part in parts:
            if part.indices:
                done += len(extractor.rows(part.pixels, rows[done:]))
    return rows, numbers


def _shares(loans: Sequence[Loan], count: int) -> list[tuple[Loan, slice]]:
    """Return which of `count` rows go to which segment; no segment is left without rows."""
    shares, start = [], 0
    for loan in loans:
        if start < count:
            shares.append((loan, slice(start, min(start + loan.rows, count))))
        start += loan.rows
    return shares


def make_batches(batches: Sequence[Batch]) -> list[Made]:
    """Compute the rows of several batches, one after the other; see `make_rows`.

    Each has a segment of its own: if a worker dies, the batch that it was at is lost, and no other.
    """
    return [make_rows(batch) for batch in batches]


@dataclass
class Batches:
    """Images whose rows the workers of a crew make and the store keeps.

    Attributes
    ----------
    crew, extractor, store, clock
        As for `lpipstore.pipeline.features.features.Features`.
    decoding
        How the images are decoded.
    full
        None until the store takes no more rows, then the reason.
    """

    crew: Crew
    extractor: Extractor
    store: FeatureStore
    decoding: Decoding
    clock: Stopwatch
    full: str | None = None

    def portable(self, content: bytes) -> bool:
        """Return whether workers can open an image: not if a program holds it in memory."""
        return split_given(self.decoding.names[content]) is None

    def make(self, contents: Sequence[bytes]) -> Iterator[tuple[list[bytes], Made]]:
        """Let workers compute rows, and store them.

        Ends early once the store takes no more; tasks under way are then the last.

        Yields
        ------
        contents, made
            Of the images whose rows are committed, and what became of the batch, whose contents
            are the keys of `Made.failures`.

        Raises
        ------
        UsageError
            The weights were given as tensors.
        """
        left = deque(contents)
        while left and self.full is None:
            before = len(left)
            for group, results in completed(self.crew, self._tasks(left), self._forward):
                yield from zip(self._kept(group, results), results, strict=True)
            if len(left) == before:  # with nothing under way there is no room either
                self.full = has_no_room(self.store)

    def _kept(self, group: Sequence[Batch], results: Sequence[Made]) -> Iterator[list[bytes]]:
        """Enter the rows of a task; yield the contents of each batch that are committed."""
        returned: list[tuple[Loan, Written]] = []
        for batch, made in zip(group, results, strict=True):
            for loan in batch.loans[len(made.written) :]:
                self.store.take_back(loan)
            returned += zip(batch.loans, made.written, strict=False)
        with self.clock("write"):
            kept = iter(self.store.accept(returned))
        for batch, made in zip(group, results, strict=True):
            contents: list[bytes] = []
            for _, share in _shares(batch.loans, len(made.numbers)):
                # Rows that were not kept are missing when they are needed, and computed then
                if next(kept):
                    contents += (batch.images[number][1] for number in made.numbers[share])
            yield contents

    def _forward(self) -> AbstractContextManager[None]:
        return self.clock("forward")

    def _tasks(self, left: deque[bytes]) -> Iterator[Task[list[Batch]]]:
        """Take contents and yield tasks of a few batches each, as long as the store has room."""
        extractor = self.extractor
        if not left:
            return
        spec, options = extractor.portable(), self.decoding.sources.options
        with self.clock("load"):
            count = threads_for(extractor)
        most = batches_together(extractor, len(left), self.crew.workers())
        group: list[Batch] = []
        while left:
            part = list(islice(left, extractor.batch))
            loans = self._lend(len(part))
            if not loans:
                break
            for _ in part:
                left.popleft()
            images = tuple((absolute(self.decoding.names[content]), content) for content in part)
            keys = tuple(extractor.spec.key(content) for content in part)
            group.append(Batch(spec, count, images, keys, options, loans))
            if len(group) == most:
                yield Task(group, make_batches, (group,))
                group = []
        if group:
            yield Task(group, make_batches, (group,))

    def _lend(self, rows: int) -> tuple[Loan, ...]:
        """Lend segments for so many rows; none if the store has no room for all."""
        loans: list[Loan] = []
        try:
            while rows > 0:
                loan = self.store.lend(self.extractor.spec, rows)
                if loan is None:
                    break
                loans.append(loan)
                rows -= loan.rows
        except StoreFull as error:
            self.full = error.message
        if rows > 0:
            for loan in loans:
                self.store.take_back(loan)
            return ()
        return tuple(loans)


def batches_together(extractor: Extractor, images: int, workers: int) -> int:
    """Return how many batches make a task, of so many images for so many workers."""
    batches = -(-images // extractor.batch)
    fitting = _TASK_BYTES // (extractor.batch * extractor.spec.row_bytes)
    return max(1, min(fitting, batches // (_TASKS_EACH * workers)))


@torch.inference_mode()
def threads_for(extractor: Extractor) -> int:
    """Return on how many threads of torch a worker gets the bits that this process gets.

    That is 1, unless the trunk's kernels sum in another order then: tried on a batch of noise,
    whose taps are compared to the bit (SqueezeNet at 224 px differs, at smaller sizes it does not).
    Then it is the number of threads here.
    """
    here = torch.get_num_threads()
    if extractor.device.type != "cpu" or here == 1:
        return 1
    noise = np.random.default_rng(0).integers(0, 256, (extractor.batch, *extractor.size, 3), "u1")
    pixels = torch.from_numpy(noise)
    ours = extractor.taps(pixels)
    with threads(1):
        same = all(map(torch.equal, ours, extractor.taps(pixels)))
    return 1 if same else here
