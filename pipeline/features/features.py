"""Rows of images: read from the store; if missing, fetched from a remote folder, or computed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, setting
from ...cache.exchange.fetch import Fetcher
from ...cache.keys import PoolSpec
from ...cache.located import Located, RowsLost
from ...cache.store import FeatureStore
from ..common.device import Device, Sent, device_of, room_on, rows_at_once
from ..common.progress import Report, Stopwatch, silent
from ..common.tasks import HERE, Crew
from ..images.loader import Decoded, Decoding
from .extractor import Extractor, extract_rows
from .far import far
from .parcels import batches_for
from .rowcache import upload_rows
from .rows import centre_of
from .stored import store_rows

Computed = Callable[[Sequence[bytes], NDArray[np.generic]], None]
"""``computed(contents, rows)``: called with each batch of rows that the trunk computed.

The next batch overwrites the rows: copy those to keep."""

_CENTRE_ROWS = 16
_ENOUGH = 16  # rows needed for a meaningful mean time


def _nobody(contents: Sequence[bytes], rows: NDArray[np.generic]) -> None:
    """Do nothing (the default of `Features.computed`)."""


@dataclass
class Features:
    """Rows by content hash: read from the store; if missing, fetched or computed, and stored.

    `decode` turns content hashes into batches of pixels; indices in a batch refer to the hashes
    that it was given. `names` maps content hashes to names for messages. `forwards` counts images
    that went through the trunk, `rows_read` rows that came from the store. `failures` maps content
    hashes to the reason why there is no row. `computed` is called with every batch that went
    through the trunk in this process. `remote` is asked for missing rows before anything is
    computed; None if there is no remote folder. `crew` is who carries out tasks; if workers of it
    were lost, `forwards_again` counts the images that went through the trunk once more.
    `device_memory` are the bytes of the device for scoring; None takes most of what is free.
    `full` is None until the store takes no more rows, then the reason; from then on, rows are
    fetched or computed again whenever they are needed.
    """

    extractor: Extractor
    store: FeatureStore
    decode: Callable[[Sequence[bytes], int], Iterator[Decoded]]
    clock: Stopwatch = field(default_factory=Stopwatch)
    report: Report = silent
    names: Mapping[bytes, str] = field(default_factory=dict)
    computed: Computed = _nobody
    remote: Fetcher | None = None
    crew: Crew = HERE
    device_memory: int | None = None
    forwards: int = 0
    forwards_again: int = 0
    rows_read: int = 0
    failures: dict[bytes, str] = field(default_factory=dict)
    full: str | None = None

    @property
    def device(self) -> Device:
        """Where rows are computed and scored."""
        return device_of(self.extractor.device)

    def room(self) -> int | None:
        """Return the bytes of the device for rows and arithmetic; None on a CPU."""
        return room_on(self.device, self.device_memory)

    def key(self, content: bytes) -> bytes:
        """Return the store key of an image's row."""
        return self.extractor.spec.key(content)

    def ensure(self, contents: Sequence[bytes]) -> int:
        """Fetch or compute rows missing from the store; return the number of hits.

        Hits are distinct images whose rows were in the store already. Images that cannot be decoded
        end up in `failures`. All other rows are committed on return; a crash loses at most one
        batch. Once the store is full, the remaining rows are left to `read`, which computes them
        when needed.
        """
        by_key = {self.key(content): content for content in contents}
        with self.clock("read"):
            missing = self.store.missing(list(by_key))
        hits = done = len(by_key) - len(missing)
        self.report("images", done, len(by_key))
        for batch, _ in self.fetch(self.extractor.spec, [by_key[key] for key in missing]):
            done += len(batch)
            self.report("images", done, len(by_key))
            if self.full is not None:
                break
        todo = [by_key[key] for key in self.not_fetched(missing)]
        for content in todo:  # retried below
            self.failures.pop(content, None)
        before = len(self.failures)
        made: set[bytes] = set()
        for batch in self._make(todo if self.full is None else []):
            made.update(batch)
            self.report("images", done + len(made) + len(self.failures) - before, len(by_key))
        if self.full is not None:
            self._try([c for c in todo if c not in made and c not in self.failures], len(by_key))
        return hits

    def _make(self, contents: list[bytes]) -> Iterator[list[bytes]]:
        """Compute and store rows until the store is full; yield the contents batch by batch."""
        crew, decode = self.crew, self.decode
        if contents and crew.elsewhere and isinstance(decode, Decoding):
            batches = batches_for(crew, self.extractor, self.store, decode, self.clock, contents)
            theirs = [content for content in contents if batches.portable(content)]
            for kept, made in batches.make(theirs):
                self.failures.update(made.failures)
                self.forwards += made.forwards
                self.forwards_again += made.again
                yield kept
            self.full = self.full or batches.full
            contents = [content for content in contents if not batches.portable(content)]
        for batch, _ in self._compute(contents if self.full is None else []):
            yield batch
            if self.full is not None:
                return

    def _try(self, contents: Sequence[bytes], total: int) -> None:
        """Find the images that cannot be decoded; rows computed now could not be stored."""
        left = len(contents)
        for decoded in self.decode(contents, self.extractor.batch) if contents else ():
            left -= len(decoded.indices) + len(decoded.failures)
            for index, reason in decoded.failures.items():
                self.failures[contents[index]] = reason
            self.report("images", total - left, total)

    def stored(self, contents: Sequence[bytes]) -> bool:
        """Return whether the store now holds the rows of all these images."""
        return not self.store.missing([self.key(content) for content in contents])

    def load(self, contents: Sequence[bytes]) -> torch.Tensor:
        """Return the rows of images on the extractor's device, [n, length], of the row dtype."""
        return self.device.upload(self.rows(contents))

    def send(self, contents: Sequence[bytes], held: int) -> Sent:
        """Begin to upload the rows of images, a share at a time; see `Device.send`.

        `held` is how many rows this machine's memory holds.
        """
        share = rows_at_once(held, self.extractor.spec.row_bytes)

        def read(which: NDArray[np.int64]) -> NDArray[np.generic]:
            return self.rows([contents[number] for number in which])

        return upload_rows(self.device, read, np.arange(len(contents)), share)

    def rows(self, contents: Sequence[bytes]) -> NDArray[np.generic]:
        """Return the rows of images, [n, length]; see `read`."""
        out = np.empty((len(contents), self.extractor.spec.length), self.extractor.spec.dtype)
        self.read(contents, out)
        return out

    def read(self, contents: Sequence[bytes], out: NDArray[np.generic]) -> None:
        """Fill ``out[k]`` with the row of ``contents[k]``; fetch or recompute missing rows.

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
        for batch, rows in self.fetch(self.extractor.spec, list(places)):
            for content, row in zip(batch, rows, strict=True):
                out[places.pop(content)] = row
        for batch, rows in self._compute(list(places)):
            for content, row in zip(batch, rows, strict=True):
                out[places.pop(content)] = row
        for content in places:
            raise LpipstoreError(
                f"the row of {self.names.get(content, content.hex())} left the store, and its "
                f"image cannot be decoded again: {self.failures[content]}"
            )

    def locate(self, contents: Sequence[bytes]) -> Located:
        """Return where the rows of images lie in the store, for workers; recompute missing ones.

        Raises
        ------
        LpipstoreError
            The store has no room for them.
        """
        keys = [self.key(content) for content in contents]
        try:
            found = self._located(keys)
        except RowsLost as lost:
            found = self.mend(lost, keys)
        self.rows_read += len(found)
        return found

    def mend(self, lost: RowsLost, keys: Sequence[bytes] | Located) -> Located:
        """Recompute rows that the store or a worker did not find; return where all of them lie.

        Raises
        ------
        LpipstoreError
            The store has no room for them, or the image of one cannot be used any more.
        """
        keys = keys.keys if isinstance(keys, Located) else keys
        by_key = {self.key(content): content for content in self.names}
        gone = [by_key[key] for key in dict.fromkeys(lost.keys) if key in by_key]
        if gone:
            self.rows(gone)  # drops what is damaged
        try:
            return self._located(keys)
        except RowsLost as error:
            raise LpipstoreError(
                f"workers read rows from the store at {self.store.path}, and it has no room for "
                f"all: {error.message}; raise {setting('store_limit')}"
            ) from error

    def _located(self, keys: Sequence[bytes]) -> Located:
        where, plane = self.store.locate(self.extractor.spec, keys), self.crew.plane
        return far(where, plane.ask) if plane is not None and plane.rows else where

    def centre(self, contents: Iterable[bytes]) -> torch.Tensor:
        """Return the centre of a collection (see `centre_of`), computed from a few of its rows."""
        return centre_of(self.load(self.central(contents)))

    def central(self, contents: Iterable[bytes], count: int = _CENTRE_ROWS) -> list[bytes]:
        """Choose a few images to represent a collection, for example to compute its centre.

        They are chosen by key, so the choice does not depend on the order of the images.
        """
        return sorted(set(contents), key=self.key)[:count]

    def row_seconds(self) -> tuple[float | None, float | None]:
        """Return the mean seconds to read and to compute a row; None if too few were seen."""
        seconds = self.clock.seconds
        read = seconds.get("read", 0.0) / self.rows_read if self.rows_read >= _ENOUGH else None
        computing = seconds.get("decode", 0.0) + seconds.get("forward", 0.0)
        return read, computing / self.forwards if self.forwards >= _ENOUGH else None

    def fetch(
        self, spec: PoolSpec, contents: Sequence[bytes]
    ) -> Iterator[tuple[list[bytes], NDArray[np.generic]]]:
        """Fetch rows of the pool of `spec` from the remote folder, and store them.

        Yields (contents, rows); contents without a good row there are left out.

        Raises
        ------
        LpipstoreError
            The remote folder cannot be read.
        """
        if self.remote is None or not contents:
            return
        by_key = {spec.key(content): content for content in contents}
        with closing(self.remote.fetch(list(by_key))) as batches:
            while True:
                with self.clock("fetch"):
                    fetched = next(batches, None)
                if fetched is None:
                    return
                batch = [by_key[key] for key in fetched.keys]
                self.keep(spec, batch, fetched.rows)
                yield batch, fetched.rows

    def not_fetched(self, keys: list[bytes]) -> list[bytes]:
        """Return those keys whose rows the remote folder cannot give: all without one."""
        return keys if self.remote is None else self.remote.missing(keys)

    def lacking(self, contents: Sequence[bytes]) -> list[bytes]:
        """Return images, each once, whose rows are neither in the store nor the remote folder."""
        by_key = {self.key(content): content for content in contents}
        return [by_key[key] for key in self.not_fetched(self.store.missing(list(by_key)))]

    def _compute(self, contents: list[bytes]) -> Iterator[tuple[list[bytes], NDArray[np.generic]]]:
        """Decode images, run the trunk and store the rows; yield (contents, rows) batch by batch.

        The next batch overwrites the rows.
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
                # Always on all of torch's threads: fewer give other bits for small batches
                with self.clock("forward"), self.extractor.memory_errors():
                    rows = extract_rows(extractor, decoded.pixels, room)
                self.forwards += len(rows)
                batch = [contents[index] for index in decoded.indices]
                self.keep(self.extractor.spec, batch, rows)
                self.computed(batch, rows)
                yield batch, rows

    def keep(self, spec: PoolSpec, contents: Sequence[bytes], rows: NDArray[np.generic]) -> None:
        """Put rows into the pool of `spec`; set `full` once the store takes no more."""
        if self.full is None:
            with self.clock("write"):
                self.full = store_rows(self.store, spec, contents, rows)
