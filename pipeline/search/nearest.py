"""Search for the nearest neighbours of each image: steps that any process can run, in order.

In one collection a distance is offered to both of its images, across two sides to that of the first
alone.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ..features.rowcache import Pairs
from .blocks import BLOCK
from .cascade import Bounds, Cascade, Tally
from .refine import Refiner
from .topk import Neighbours


def nearest_in_step(
    cascade: Cascade, exact: Refiner, step: int, found: Neighbours, below: float
) -> tuple[Neighbours, Tally]:
    """Take one of two steps for each block of the search.

    First every block is compared with itself, or with the likely neighbours on the other side, so
    that each image has neighbours to begin with; then each block with all its partners, except
    pairs that bounds rule out for both images.

    Parameters
    ----------
    cascade, exact
        The bounds and the rows of the collection. They can be pickled if what reads their rows can
        be.
    step
        0, 1, 2 and so on, in order.
    found
        The neighbours so far; updated, and returned for other processes.
    below
        Neighbours at this distance or farther are not needed; infinite for no limit.

    Returns
    -------
    Neighbours, Tally
        Those of this step are added, with the distances of the dense matrix; and the work done.
    """
    sides = cascade.sides
    tally, block = Tally(), step % sides.blocks
    nearest = _Comparisons(cascade, exact, found, below, tally)
    if step < sides.blocks:
        images = sides.top(block)
        nearest.compare(images, images if sides.single else cascade.likely(block, BLOCK, tally))
        return found, tally
    for left in cascade.left(range(block, block + 1), nearest.limits(), tally, itself=False):
        nearest.meet(*left)
    return found, tally


@dataclass(frozen=True)
class _Comparisons:
    """What a step works with; `found` and `tally` are updated."""

    cascade: Cascade
    exact: Refiner
    found: Neighbours
    below: float
    tally: Tally

    def meet(self, pairs: Pairs, bounds: Bounds, out_of: int) -> None:
        """Compare the pairs left by the coarsest stage, as far as they can matter."""
        # Limits are loose until an image has been compared with its likely neighbours
        compared, pairs, bounds = self._promising(pairs, bounds)
        self.cascade.pass_by(compared, self.tally)
        pairs, bounds = self._still(pairs, bounds)
        limits = self.limits()
        pairs, bounds = self.cascade.refined(pairs, bounds, out_of, limits, self.tally)
        while len(pairs):
            _, pairs, bounds = self._promising(pairs, bounds)
            pairs, bounds = self._still(pairs, bounds)

    def _promising(self, pairs: Pairs, bounds: Bounds) -> tuple[int, Pairs, Bounds]:
        """Compare likely neighbours; return how many of the pairs these were, and the others."""
        if not len(pairs):
            return 0, pairs, bounds
        others = np.unique(pairs[:, 1])
        smallest = np.full(len(others), np.inf, np.float32)
        np.minimum.at(smallest, np.searchsorted(others, pairs[:, 1]), bounds)
        first = np.sort(others[np.argsort(smallest, kind="stable")[: self.exact.side]])
        now = np.isin(pairs[:, 1], first)
        self.compare(np.unique(pairs[now, 0]), first)
        return int(now.sum()), pairs[~now], bounds[~now]

    def _still(self, pairs: Pairs, bounds: Bounds) -> tuple[Pairs, Bounds]:
        """Return the pairs that can still matter given what was found, and their bounds."""
        left = self.cascade.matters(bounds, self.limits(), pairs)
        return pairs[left], bounds[left]

    def compare(self, images: NDArray[np.int64], others: NDArray[np.int64]) -> None:
        """Compare two sets of images and offer the distances to `found`."""
        side, found = self.exact.side, self.found
        tops, lefts = (
            [numbers[start : start + side] for start in range(0, len(numbers), side)]
            for numbers in (images, others)
        )
        for top, left in product(tops, lefts):
            itself = np.array_equal(top, left)
            distances = self.exact.product(top, None if itself else left, self.tally)
            found.offer(top, left, distances)
            if self.cascade.sides.single and not itself:
                found.offer(left, top, distances.T)

    def limits(self) -> NDArray[np.float64]:
        """Return the largest distance that matters to each image, float64 [count]."""
        sides = self.cascade.sides
        limits = np.full(sides.count, -np.inf)
        reach = np.minimum(self.found.reach(), self.below)
        limits[: sides.searched] = self.exact.dense.reach(reach)
        return limits
