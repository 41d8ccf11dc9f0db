"""Search a part of a collection for close pairs: a step that any process can run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..features.rowcache import Pairs
from .cascade import Cascade, Tally
from .refine import Refiner


class Close(NamedTuple):
    """Pairs and their distances: int64 [p], int64 [p], float32 [p]."""

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    distance: NDArray[np.float32]


@dataclass(frozen=True)
class Effort:
    """How much a part may cost before it is given up, because the matrix is clearly faster.

    Cost is counted, not timed: the same search always gives up at the same place.

    Attributes
    ----------
    most
        The cost that is allowed in any case, in multiply-adds of the dense matrix.
    pairs
        Pairs of the part.
    each
        What one pair costs in the dense matrix.
    few
        As for `Cascade.left`.
    """

    most: float
    pairs: int
    each: int
    few: int = 0

    def too_much(self, met: int, tally: Tally) -> bool:
        """Return whether to give up after `met` pairs."""
        return met < self.pairs and tally.cost > self.most and tally.cost > met * self.each


def close_in_part(
    cascade: Cascade,
    exact: Refiner,
    blocks: range,
    below: float,
    tally: Tally,
    effort: Effort | None = None,
) -> tuple[Close | None, Tally]:
    """Find the pairs closer than `below` of the images of some blocks with their partners.

    Parameters
    ----------
    cascade, exact
        The bounds and the rows of the collection. They can be pickled if what reads their rows can
        be.
    blocks
        Numbers of the blocks.
    tally
        The work so far; updated, and returned for other processes.
    effort
        When to give up; None never does.

    Returns
    -------
    Close or None
        The pairs (i, j), i < j, whose distance in the dense matrix is under `below`, sorted by i,
        then j. See `Refiner.below` for the distances. None if the part was given up.
    Tally
        The work done.
    """
    found, met = [], 0
    reach = exact.dense.reach(np.full(cascade.sides.count, below))
    few = 0 if effort is None else effort.few
    for left in cascade.left(blocks, reach, tally, itself=True, few=few):
        pairs, _ = cascade.refined(*left, reach, tally)
        found.append(exact.below(pairs, below, tally))
        met += left[2]
        if effort is not None and effort.too_much(met, tally):
            return None, tally
    return in_order(found), tally


def in_order(found: Sequence[tuple[Pairs, NDArray[np.float32]]]) -> Close:
    """Return pairs with their distances, sorted by i, then j."""
    pairs, distances = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return Close(pairs[order, 0], pairs[order, 1], distances[order])
