"""Rows of images: taken from the store where they are there, computed where not."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError
from ...cache.keys import PoolSpec
from ...cache.store import FeatureStore, StoreFull
from ..common.progress import Report, Stopwatch, silent
from ..images.loader import Decoded
from .extractor import Extractor
from .rows import centre_of

Computed = Callable[[Sequence[bytes], NDArray[np.generic]], None]
"""``computed(contents, rows)``: called with each batch of rows that came out of the trunk.

They are overwritten by the next batch: copy what is kept."""

_CENTRE_ROWS = 16
_ENOUGH = 16  # rows, before their mean time says anything


def _nobody(contents: Sequence[bytes], rows: NDArray[np.generic]) -> None:
    """Do nothing: the default of `Features.computed`."""


@dataclass
class Features:
    """Rows by content hash: taken from the store where they are, computed and kept where not.

    `decode` turns content hashes into batches of pixels; indices in a batch count along the hashes
    that it was given. `names` call the images in messages. `forwards` counts images that went
    through the trunk, `rows_read` rows that came from the store. `failures` maps content hashes to
    the reason why there is no row. `computed` is told of every batch that went through the trunk.
    `full` holds the store's words once it could take no more: rows are then computed again whenever
    they are needed.
    """

    extractor: Extractor
    store: FeatureStore
    decode: Callable[[Sequence[bytes], int], Iterator[Decoded]]
    clock: Stopwatch = field(default_factory=Stopwatch)
    report: Report = silent
    names: Mapping[bytes, str] = field(default_factory=dict)
    computed: Computed = _nobody
    forwards: int = 0
    rows_read: int = 0
    failures: dict[bytes, str] = field(default_factory=dict)
    full: str | None = None

    def key(self, content: bytes) -> bytes:
        """Return the store's key for the row of an image."""
        return self.extractor.spec.key(content)

    def ensure(self, contents: Sequence[bytes]) -> int:
        """Run the backbone on every image whose row the store lacks.

        Returns the number of different images whose rows were there already. Images that cannot be
        decoded end in `failures`. Everything else is committed when this returns, and what a crash
        interrupts is lost by one batch at most; once the store is full, the others are left to
        `read`, which makes their rows when they are needed.
        """
        by_key = {self.key(content): content for content in contents}
        with self.clock("read"):
            missing = self.store.missing(list(by_key))
        hits = done = len(by_key) - len(missing)
        self.report("images", done, len(by_key))
        todo = [by_key[key] for key in missing]
        for content in todo:  # they are tried again
            self.failures.pop(content, None)
        before = len(self.failures)
        kept = 0
        for batch, _ in self._compute(todo):
            kept += len(batch)
            self.report("images", done + kept + len(self.failures) - before, len(by_key))
            if self.full is not None:
                break
        if self.full is not None:
            self._try(todo[kept + len(self.failures) - before :], len(by_key))
        return hits

    def _try(self, contents: Sequence[bytes], total: int) -> None:
        """Find out which images cannot be decoded; their rows would be lost if made now."""
        left = len(contents)
        for decoded in self.decode(contents, self.extractor.batch) if contents else ():
            left -= len(decoded.indices) + len(decoded.failures)
            for index, reason in decoded.failures.items():
                self.failures[contents[index]] = reason
            self.report("images", total - left, total)

    def stored(self, contents: Sequence[bytes]) -> bool:
        """Tell whether the store holds the rows of all of these images now."""
        return not self.store.missing([self.key(content) for content in contents])

    def load(self, contents: Sequence[bytes]) -> torch.Tensor:
        """Return the rows of images on the device that scores, [n, length], of the row dtype."""
        return torch.from_numpy(self.rows(contents)).to(self.extractor.device)

    def rows(self, contents: Sequence[bytes]) -> NDArray[np.generic]:
        """Return the rows of images, [n, length], as `read` finds them."""
        out = np.empty((len(contents), self.extractor.spec.length), self.extractor.spec.dtype)
        self.read(contents, out)
        return out

    def read(self, contents: Sequence[bytes], out: NDArray[np.generic]) -> None:
        """Fill ``out[k]`` with the row of ``contents[k]``, computing again what the store lost.

        Raises
        ------
        LpipstoreError
            A row is no longer in the store and its image can no longer be decoded.
        """
        with self.clock("read"):
            found = self.store.get_many([self.key(content) for content in contents], out)
        self.rows_read += int(found.sum())
        places: dict[bytes, list[int]] = {}
        for place in np.flatnonzero(~found).tolist():
            places.setdefault(contents[place], []).append(place)
        for batch, rows in self._compute(list(places)):
            for content, row in zip(batch, rows, strict=True):
                out[places.pop(content)] = row
        for content in places:
            raise LpipstoreError(
                f"the row of {self.names.get(content, content.hex())} left the store, and its "
                f"image cannot be decoded again: {self.failures[content]}"
            )

    def centre(self, contents: Iterable[bytes]) -> torch.Tensor:
        """Return the centre of a collection (see `centre_of`), from the rows of a few images."""
        return centre_of(self.load(self.central(contents)))

    def central(self, contents: Iterable[bytes], count: int = _CENTRE_ROWS) -> list[bytes]:
        """Choose a few images that stand for a collection, such as those that make its centre.

        They are chosen by key: the order of the images is all the same to every bit.
        """
        return sorted(set(contents), key=self.key)[:count]

    def row_seconds(self) -> tuple[float | None, float | None]:
        """Seconds that reading a row and computing one took; None where too few were seen."""
        seconds = self.clock.seconds
        read = seconds.get("read", 0.0) / self.rows_read if self.rows_read >= _ENOUGH else None
        computing = seconds.get("decode", 0.0) + seconds.get("forward", 0.0)
        return read, computing / self.forwards if self.forwards >= _ENOUGH else None

    def _compute(self, contents: list[bytes]) -> Iterator[tuple[list[bytes], NDArray[np.generic]]]:
        """Decode and forward images, keep their rows; yield (contents, rows) batch by batch.

        The rows of a batch are overwritten by those of the next.
        """
        if not contents:
            return
        extractor = self.extractor
        batches = self.decode(contents, extractor.batch)
        count = min(len(contents), extractor.batch)
        room = np.empty((count, extractor.layout.length), extractor.spec.dtype)
        while True:
            with self.clock("decode"), self.extractor.memory_errors():
                decoded = next(batches, None)
            if decoded is None:
                return
            for index, reason in decoded.failures.items():
                self.failures[contents[index]] = reason
            if decoded.indices:
                with self.clock("load"):
                    _ = extractor.backbone.trunk
                # Always on all of torch's threads: small batches give other bits on fewer
                with self.clock("forward"), self.extractor.memory_errors():
                    rows = extractor.rows(decoded.pixels, room)
                self.forwards += len(rows)
                batch = [contents[index] for index in decoded.indices]
                self.keep(self.extractor.spec, batch, rows)
                self.computed(batch, rows)
                yield batch, rows

    def keep(self, spec: PoolSpec, contents: Sequence[bytes], rows: NDArray[np.generic]) -> None:
        """Put rows into the pool of `spec`, as long as the disk takes them."""
        if self.full is not None:
            return
        try:
            with self.clock("write"):
                keys = [spec.key(content) for content in contents]
                kept = self.store.put_many(spec, keys, rows)
            if kept < len(keys):
                self.full = f"the store at {self.store.path} has reached its limit"
        except StoreFull as error:
            self.full = str(error)
