"""What a page shows of a list of pairs: one that was scored, or one that a search found."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ....cache.errors import LpipstoreError
from ....pipeline.common.text import printable
from ....pipeline.images.survey import ImageRecord
from ....pipeline.runs.run import FinishedRun
from ...session.screen import Screen
from ...session.settings import Settings
from ..duplicates import Duplicates, find_duplicates
from .allpairs import MOST
from .spread import Pair, Spread, WithImages, numbered, spread_of, spread_out

Numbers = NDArray[np.int64]
_NAMED = 12  # hubs and loners


class ListSeen:
    """The pairs of a list that have a distance, each part made when it is first asked for.

    Attributes
    ----------
    images
        The usable images.
    lines
        int64 [pairs]: lines of ``pairs.parquet``.
    left, right
        int64 [pairs]: indices into `images`.
    lengths
        float32 [pairs]: their distances.
    """

    def __init__(self, run: FinishedRun, images: Sequence[ImageRecord], screen: Screen) -> None:
        self.run = run
        self.images = images
        self._screen = screen
        table = run.pairs
        known = np.asarray(table["distance"].is_valid().to_numpy(), bool)
        kept = table.filter(known)
        self.lines: Numbers = np.flatnonzero(known)
        self.left = np.asarray(kept["i"].to_numpy(), np.int64)
        self.right = np.asarray(kept["j"].to_numpy(), np.int64)
        self.lengths = np.asarray(kept["distance"].to_numpy(), np.float32)
        if len(self.left) and max(self.left.max(), self.right.max()) >= len(images):
            raise LpipstoreError(
                f"the tables in {printable(str(run.path))} do not fit each other: make the run "
                "again"
            )

    @cached_property
    def distinct(self) -> Numbers:
        """Indices of pairs, each two images once: a search for neighbours lists many twice."""
        low, high = np.minimum(self.left, self.right), np.maximum(self.left, self.right)
        return np.sort(np.unique(low * len(self.images) + high, return_index=True)[1])

    @cached_property
    def statistics(self) -> Spread:
        """Counts over all lines, and extreme pairs; there must be a line."""
        once = self.distinct
        every = spread_of(self.left, self.right, self.lengths)
        extremes = spread_of(self.left[once], self.right[once], self.lengths[once])
        return replace(extremes, counts=every.counts)

    def in_order(self) -> list[Pair]:
        """Return all different pairs, the closest first: for short lists."""
        order = self.distinct[np.argsort(self.lengths[self.distinct], kind="stable")]
        return numbered(self.left, self.right, self.lengths, order.tolist())

    def with_images(self, pairs: Sequence[Pair]) -> WithImages:
        """Return pairs with their images in place of numbers."""
        return [(self.images[p.left], self.images[p.right], p.distance) for p in pairs]

    @cached_property
    def duplicates(self) -> Duplicates:
        """Groups of near-duplicates at the threshold of a search for close pairs."""
        return find_duplicates([self.run.path], Settings(), self._screen)

    @cached_property
    def _ordered(self) -> tuple[Numbers, Numbers]:
        """Places in `_links`, by image and then by distance; and where those of each begin."""
        of, _, lengths = self._links
        order = np.lexsort((lengths, of))
        return order, np.searchsorted(of[order], np.arange(len(self.images) + 1))

    @cached_property
    def _links(self) -> tuple[Numbers, Numbers, NDArray[np.float32]]:
        """From image, to image, distance; close pairs are links in both directions."""
        if self.run.manifest.get("top_k") is not None:
            return self.left, self.right, self.lengths
        return (
            np.concatenate([self.left, self.right]),
            np.concatenate([self.right, self.left]),
            np.concatenate([self.lengths, self.lengths]),
        )

    def links(self, image: int) -> tuple[Numbers, NDArray[np.float32]]:
        """Return the images that are listed for an image, nearest first, and their distances."""
        order, starts = self._ordered
        places = order[starts[image] : starts[image + 1]]
        return self._links[1][places], self._links[2][places]

    @cached_property
    def times_named(self) -> Numbers:
        """How many images each image is a neighbour of: int64 [images]."""
        return np.bincount(self._links[1], minlength=len(self.images))

    @cached_property
    def nearest(self) -> tuple[Numbers, NDArray[np.float32]]:
        """The nearest listed image of each, -1 for none, and its distance, infinite for none."""
        order, starts = self._ordered
        has = starts[1:] > starts[:-1]
        places = order[starts[:-1][has]]
        image = np.full(len(self.images), -1, np.int64)
        length = np.full(len(self.images), np.inf, np.float32)
        image[has], length[has] = self._links[1][places], self._links[2][places]
        return image, length

    @cached_property
    def hubs(self) -> Numbers:
        """Images that are neighbours of most others, a dozen at most."""
        ranked = np.argsort(-self.times_named, kind="stable")[:_NAMED]
        return ranked[self.times_named[ranked] > 0]

    @cached_property
    def loners(self) -> Numbers:
        """Images whose nearest is farthest, a dozen at most; not those for which none is listed."""
        lengths = np.where(np.isfinite(self.nearest[1]), self.nearest[1], -np.inf)
        ranked = np.argsort(-lengths, kind="stable")[:_NAMED]
        return ranked[np.isfinite(lengths[ranked])]

    @cached_property
    def shown(self) -> Numbers:
        """The images that the page shows, ascending: `MOST` or so."""
        count, seen = len(self.images), self.statistics
        pairs = (*seen.closest, *seen.median, *seen.farthest)
        named = [np.array([n for pair in pairs for n in (pair.left, pair.right)], np.int64)]
        if self.run.manifest.get("top_k") is None:  # what is close to something
            ranked = np.argsort(self.lengths, kind="stable")
            ends = np.stack([self.left[ranked], self.right[ranked]], 1).ravel()
            firsts = np.sort(np.unique(ends, return_index=True)[1])
            return np.union1d(ends[firsts[:MOST]], named[0])
        if count <= MOST:
            return np.arange(count)
        named += [self.hubs, self.loners]
        centres = MOST
        while True:  # the most centres that leave room for their neighbours
            chosen = spread_out(count, max(1, centres))
            every = np.concatenate([*named, chosen, *(self.links(int(n))[0] for n in chosen)])
            shown = np.unique(every)
            if len(shown) <= MOST or centres <= 1:
                return shown
            centres = centres * 3 // 4
