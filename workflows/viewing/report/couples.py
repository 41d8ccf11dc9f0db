"""What a page shows of pairs of namesakes, within groups, or close across two collections."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ....pipeline.images.survey import ImageRecord
from ....pipeline.runs.files import PAIRS
from ....pipeline.runs.reopen import reading
from ....pipeline.runs.run import FinishedRun
from .spread import Gathering, Pair, Spread, WithImages


class CouplesSeen:
    """The pairs of a run that have a distance.

    Parameters
    ----------
    run
        A run with ``pairs.parquet``.
    first, second
        The images that its columns ``i`` and ``j`` count: the usable ones of the run or, across two
        collections, those of either.

    Attributes
    ----------
    left, right
        int64 [pairs]: indices into `first` and `second`.
    distances
        float32 [pairs].
    """

    def __init__(
        self, run: FinishedRun, first: Sequence[ImageRecord], second: Sequence[ImageRecord]
    ) -> None:
        self.run = run
        self.first = first
        self.second = second
        with reading(run, PAIRS):
            table = run.pairs.select(["i", "j", "distance"])
            pairs = table.filter(table["distance"].is_valid())
            self.left, self.right = (np.asarray(pairs[end], np.int64) for end in "ij")
            self.distances: NDArray[np.float32] = np.asarray(pairs["distance"], np.float32)

    @cached_property
    def statistics(self) -> Spread:
        """Counts and extreme pairs."""
        gathering = Gathering(self.run.summary["quantiles"], len(self.distances))
        gathering.add(self.distances, lambda n: (int(self.left[n]), int(self.right[n])))
        return gathering.spread()

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The pairs by distance, the closest first."""
        return np.argsort(self.distances, kind="stable")

    def pair(self, n: int) -> Pair:
        """Return a pair by its number."""
        return Pair(int(self.left[n]), int(self.right[n]), float(self.distances[n]))

    def with_images(self, pairs: Sequence[Pair]) -> WithImages:
        """Return pairs with their images in place of numbers."""
        return [(self.first[p.left], self.second[p.right], p.distance) for p in pairs]

    def nearest(self) -> NDArray[np.int64]:
        """Return for each image of the first side that has pairs its closest pair, by distance."""
        _, place = np.unique(self.left[self.order], return_index=True)
        return self.order[np.sort(place)]
