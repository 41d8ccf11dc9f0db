"""Rows made by workers: a task decodes and forwards one batch and fills a lent segment."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch

from ...cache.errors import StoreFull
from ...cache.loans import Loan
from ...cache.segments import Written
from ...cache.store import FeatureStore
from ..common.progress import Stopwatch
from ..common.tasks import Crew, Task, completed, threads
from ..images.loader import Decoding, decode_images
from ..sources.names import absolute, split_given
from ..sources.source import SourceOptions
from ..sources.sources import Sources
from .extractor import Extractor, ExtractorSpec, extractor_of


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
    loan
        The segment for the rows.
    """

    extractor: ExtractorSpec
    threads: int
    images: tuple[tuple[str, bytes], ...]
    keys: tuple[bytes, ...]
    options: SourceOptions
    loan: Loan


@dataclass(frozen=True)
class Made:
    """What became of a batch.

    Attributes
    ----------
    written
        The rows in the lent segment; None if no image could be decoded.
    numbers
        The numbers of their images in the batch.
    failures
        Reasons by content hash of the image.
    forwards, again
        Images that this attempt sent through the trunk, and that earlier ones may have, whose
        worker died.
    """

    written: Written | None
    numbers: list[int] = field(default_factory=list)
    failures: dict[bytes, str] = field(default_factory=dict)
    forwards: int = 0
    again: int = 0


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
    found = batch.loan.found(batch.keys)
    count = len(batch.keys)
    if found is not None:  # made by a worker that died before it could say so
        return Made(found, list(range(count)), forwards=count)
    before = batch.loan.begin()
    extractor = extractor_of(batch.extractor)
    how, sources = extractor.preparation, _sources_of(batch.options)
    parts = list(decode_images(batch.images, sources, how, count, workers=0))
    images = batch.images
    failures = {images[at][1]: why for part in parts for at, why in part.failures.items()}
    numbers = [number for part in parts for number in part.indices]
    if not numbers:
        return Made(None, failures=failures)
    rows = np.empty((len(numbers), extractor.spec.length), extractor.spec.dtype)
    done = 0
    with threads(batch.threads), extractor.memory_errors():
        for part in parts:
            if part.indices:
                done += len(extractor.rows(part.pixels, rows[done:]))
    written = batch.loan.write([batch.keys[number] for number in numbers], rows)
    return Made(written, numbers, failures, len(numbers), before * len(numbers))


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
        if not contents:
            return
        for batch, made in completed(self.crew, self._tasks(contents), self._forward):
            if made.written is None:
                self.store.take_back(batch.loan)
                yield [], made
                continue
            with self.clock("write"):
                (kept,) = self.store.accept([(batch.loan, made.written)])
            # Rows that were not kept are missing when they are needed, and computed then
            yield [batch.images[number][1] for number in made.numbers] if kept else [], made

    def _forward(self) -> AbstractContextManager[None]:
        return self.clock("forward")

    def _tasks(self, contents: Sequence[bytes]) -> Iterator[Task[Batch]]:
        """Yield a task for each batch for which the store has room."""
        extractor, names = self.extractor, self.decoding.names
        spec = extractor.portable()
        with self.clock("load"):
            count = threads_for(extractor)
        for start in range(0, len(contents), extractor.batch):
            part = contents[start : start + extractor.batch]
            try:
                loan = self.store.lend(extractor.spec, len(part))
            except StoreFull as error:
                self.full = error.message
                return
            if loan is None:
                self.full = f"the store at {self.store.path} has reached its limit"
                return
            images = tuple((absolute(names[content]), content) for content in part)
            keys = tuple(extractor.spec.key(content) for content in part)
            batch = Batch(spec, count, images, keys, self.decoding.sources.options, loan)
            yield Task(batch, make_rows, (batch,))


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
