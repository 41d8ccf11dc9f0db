"""Rows of images that workers do not see: files travel with the tasks, and rows come back."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import xxhash
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError
from ...cache.keys import PoolSpec
from ...cache.store import FeatureStore
from ..common.by_value import ByValue
from ..common.plane import Ask, Plane
from ..common.progress import Stopwatch
from ..common.tasks import Crew, Task, completed
from ..images.encoded import read_images
from ..images.loader import Decoding, decode_batch
from ..sources.source import ImageData, ImageError
from ..sources.sources import Sources
from .batches import Batches, Made, batches_together, rows_of, threads_for
from .extractor import Extractor, ExtractorSpec, extractor_of
from .far import stored_weights, weights_called
from .stored import store_rows

_BATCH_BYTES = 32 << 20  # of the files of a batch: larger images make smaller batches
_MOST_TIMES = 3  # that images travel whose rows come back damaged


@dataclass(frozen=True, eq=False)
class Parcel(ByValue):
    """A batch of images for a worker, with all that it needs.

    Attributes
    ----------
    extractor, threads
        As for `lpipstore.pipeline.features.batches.Batch`.
    images
        Of each image the bytes of its file, or its pixels, or the reason why it cannot be read.
    ask
        Asks for the weights.
    """

    extractor: ExtractorSpec
    threads: int
    images: tuple[ImageData | str, ...]
    ask: Ask


@dataclass(frozen=True, eq=False)
class Returned:
    """What became of a parcel.

    Attributes
    ----------
    rows, numbers
        [n, length]; and the number of the image of each in the parcel.
    failures
        Reasons by number.
    digest
        The xxh3-128 of the rows' bytes, as computed by the worker.
    """

    rows: NDArray[np.generic]
    numbers: list[int]
    failures: dict[int, str]
    digest: bytes

    def whole(self, spec: PoolSpec) -> bool:
        """Return whether the rows arrived as they were sent."""
        return (
            self.rows.shape == (len(self.numbers), spec.length)
            and self.rows.dtype == spec.dtype
            and _digest(self.rows) == self.digest
        )


def _digest(rows: NDArray[np.generic]) -> bytes:
    return xxhash.xxh3_128_digest(np.ascontiguousarray(rows).data) if rows.size else b""


def open_parcels(parcels: Sequence[Parcel]) -> list[Returned]:
    """Decode the images of parcels and compute their rows, in any process.

    Raises
    ------
    LpipstoreError
        The weights do not come, or values are not finite.
    """
    return [_open(parcel) for parcel in parcels]


def _open(parcel: Parcel) -> Returned:
    extractor = extractor_of(parcel.extractor, parcel.ask)

    def read(index: int) -> ImageData:
        data = parcel.images[index]
        if isinstance(data, str):
            raise ImageError(data)
        return data

    unnamed = [("", b"")] * len(parcel.images)
    parts = decode_batch(unnamed, Sources(), extractor.preparation, read=read)
    rows, numbers = rows_of(extractor, parts, parcel.threads)
    failures = {at: why for part in parts for at, why in part.failures.items()}
    return Returned(rows, numbers, failures, _digest(rows))


@dataclass
class Parcels:
    """Images whose rows workers make that see neither the images nor the store.

    Attributes
    ----------
    crew, extractor, store, decoding, clock, full
        As for `lpipstore.pipeline.features.batches.Batches`.
    plane
        The way to the workers.
    """

    crew: Crew
    plane: Plane
    extractor: Extractor
    store: FeatureStore
    decoding: Decoding
    clock: Stopwatch
    full: str | None = None
    _damaged: list[bytes] = field(default_factory=list)

    def portable(self, content: bytes) -> bool:
        """Return True: whatever can be read here can be sent."""
        return True

    def make(self, contents: Sequence[bytes]) -> Iterator[tuple[list[bytes], Made]]:
        """Let workers compute rows, and store them; see `Batches.make`.

        Raises
        ------
        LpipstoreError
            Rows come back damaged again and again.
        """
        if not contents:
            return
        choice = self.extractor.portable().backbone
        self.plane.offer(weights_called(choice), cache(partial(stored_weights, choice)))
        for _ in range(_MOST_TIMES):
            with closing(self._tasks(contents)) as tasks:
                for labels, results in completed(self.crew, tasks, self._forward):
                    for batch, returned in zip(labels, results, strict=True):
                        if returned.whole(self.extractor.spec):
                            yield self._kept(batch, returned)
                        else:
                            self._damaged += batch
            contents, self._damaged = self._damaged, []
            if not contents or self.full is not None:
                return
        raise LpipstoreError(
            f"the rows of {len(contents):,} images came back damaged from workers {_MOST_TIMES} "
            "times: look for a host with bad memory or a bad network"
        )

    def _kept(self, batch: Sequence[bytes], returned: Returned) -> tuple[list[bytes], Made]:
        spec = self.extractor.spec
        contents = [batch[number] for number in returned.numbers]
        if contents and self.full is None:
            with self.clock("write"):
                self.full = store_rows(self.store, spec, contents, returned.rows)
        failures = {batch[number]: why for number, why in returned.failures.items()}
        return contents, Made(failures=failures, forwards=len(contents))

    def _forward(self) -> AbstractContextManager[None]:
        return self.clock("forward")

    def _tasks(self, contents: Sequence[bytes]) -> Generator[Task[list[list[bytes]]], None, None]:
        """Read images and yield tasks of a few batches each, as long as the store has room."""
        extractor = self.extractor
        spec, row_bytes = extractor.portable(), extractor.spec.row_bytes
        with self.clock("load"):
            threads = threads_for(extractor)
        most = batches_together(extractor, len(contents), self.crew.workers())
        labels: list[list[bytes]] = []
        parcels: list[Parcel] = []
        size = 0
        for batch, images in self._batches(contents):
            labels.append(batch)
            parcels.append(Parcel(spec, threads, images, self.plane.ask))
            size += sum(map(_bytes_of, images)) + len(images) * row_bytes
            if len(labels) == most or size >= _BATCH_BYTES:
                yield Task(labels, open_parcels, (tuple(parcels),), size)
                labels, parcels, size = [], [], 0
            if self.full is not None:
                return
        if labels:
            yield Task(labels, open_parcels, (tuple(parcels),), size)

    def _batches(
        self, contents: Sequence[bytes]
    ) -> Iterator[tuple[list[bytes], tuple[ImageData | str, ...]]]:
        """Yield batches: the contents of their images, and the images."""
        decoding, count = self.decoding, self.extractor.batch
        named = [(decoding.names[content], content) for content in contents]
        batch: list[bytes] = []
        read: list[ImageData | str] = []
        size = 0
        with closing(read_images(named, decoding.sources, decoding.how, count)) as images:
            for number, content in enumerate(contents, 1):
                with self.clock("decode"):
                    image = next(images)
                batch.append(content)
                read.append(image)
                size += _bytes_of(image)
                if len(batch) == count or size >= _BATCH_BYTES or number == len(contents):
                    yield batch, tuple(read)
                    batch, read, size = [], [], 0


def _bytes_of(image: ImageData | str) -> int:
    return len(image) if isinstance(image, bytes | str) else image.nbytes


def batches_for(
    crew: Crew,
    extractor: Extractor,
    store: FeatureStore,
    decoding: Decoding,
    clock: Stopwatch,
    contents: Sequence[bytes],
) -> Batches | Parcels:
    """Return what lets the workers of a crew make rows: from files that they see, or are sent."""
    plane = crew.plane
    if plane is None or (not plane.rows and plane.sees([decoding.names[c] for c in contents])):
        return Batches(crew, extractor, store, decoding, clock)
    return Parcels(crew, plane, extractor, store, decoding, clock)
