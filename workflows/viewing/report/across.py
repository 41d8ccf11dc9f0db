"""What a page shows of the distances of two collections to one another, read band by band."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....cache.errors import LpipstoreError
from ....pipeline.analysis.hierarchy import leaf_order
from ....pipeline.common.text import printable
from ....pipeline.images.survey import ImageRecord
from ....pipeline.runs.run import FinishedRun
from .allpairs import MOST, distances_of
from .spread import Gathering, Pair, Spread, WithImages, colour_limits, smallest, spread_out

CLOSEST = 400  # images of a large first collection whose nearest is shown
NEAREST = 10  # images of the second collection that a click shows
_ALL_NEAREST = 100  # images of the first collection, so many that the ten nearest of all are shown


@dataclass(frozen=True)
class Nearest:
    """For each image of the first collection its nearest in the second.

    Attributes
    ----------
    column
        int64 [rows]: the nearest image of the second collection.
    distance
        float32 [rows]: its distance.
    order
        int64 [rows]: the images of the first collection, those with the closest match first.
    """

    column: NDArray[np.int64]
    distance: NDArray[np.float32]

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The images of the first collection by distance."""
        return np.argsort(self.distance, kind="stable")


class AcrossSeen:
    """The distances between two collections, each part read when it is first asked for.

    Parameters
    ----------
    run
        A run of ``compare`` with a matrix.
    first, second
        The usable images of either collection: the rows and the columns of the matrix.

    Notes
    -----
    Up to `MOST` images are all shown. Of more, the page shows those at equal steps through either
    collection, the `CLOSEST` images of the first with the closest match in the second and these
    matches, and those of the pairs that it names.
    """

    def __init__(
        self, run: FinishedRun, first: Sequence[ImageRecord], second: Sequence[ImageRecord]
    ) -> None:
        self.run = run
        self.first = first
        self.second = second
        if run.distances.shape != (len(first), len(second)):
            raise LpipstoreError(
                f"{printable(str(run.path))} is damaged: its table has {len(first):,} and "
                f"{len(second):,} usable images, its matrix "
                f"{' × '.join(map(str, run.distances.shape))} distances; make the run again"
            )

    @cached_property
    def _passed(self) -> tuple[Spread, Nearest]:
        """All that one pass over the matrix gives."""
        gathering = Gathering(self.run.summary["quantiles"], len(self.first) * len(self.second))
        columns, distances = [], []
        for top, band in _bands(self.run):
            gathering.add(band.ravel(), _Ends(top, band.shape[1]))
            columns.append(band.argmin(1))
            distances.append(band.min(1))
        nearest = Nearest(np.concatenate(columns), np.concatenate(distances))
        return gathering.spread(), nearest

    @property
    def statistics(self) -> Spread:
        """Counts and extreme pairs."""
        return self._passed[0]

    @property
    def nearest(self) -> Nearest:
        """For each image of the first collection its nearest in the second."""
        return self._passed[1]

    @property
    def whole(self) -> bool:
        """Whether the page shows all images."""
        return len(self.first) + len(self.second) <= MOST

    @property
    def listed(self) -> NDArray[np.int64]:
        """The images of the first collection that are listed with their nearest, closest first."""
        order = self.nearest.order
        return order if self.whole else order[:CLOSEST]

    @cached_property
    def shown(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows and the columns of the matrix that the page shows, ascending."""
        down, across = len(self.first), len(self.second)
        if self.whole:
            return np.arange(down), np.arange(across)
        seen = self.statistics
        pairs = (*seen.closest, *seen.median, *seen.farthest)
        least = MOST - min(down, across, MOST // 2)
        rows = np.union1d(
            spread_out(down, min(down, least)),
            np.r_[self.listed, [pair.left for pair in pairs]],
        )
        named = np.asarray([pair.right for pair in pairs], np.int64)
        columns = [self.nearest.column[self.listed], named]
        if len(rows) <= _ALL_NEAREST:
            band = distances_of(self.run, rows, np.arange(across))
            columns += [smallest(row, NEAREST) for row in band]
        spread = spread_out(across, min(across, least))
        return rows, np.union1d(spread, np.concatenate(columns))

    @cached_property
    def distances(self) -> NDArray[np.float32]:
        """Distances of the images shown: float32 [rows, columns]."""
        return distances_of(self.run, *self.shown)

    @cached_property
    def orders(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns shown, so that those alike stand side by side.

        Images are alike that are about as far from each image of the other collection. Beside a
        single image they stand by their distance from it.
        """
        down, across = self.distances.shape
        if across == 1:
            return np.argsort(self.distances[:, 0], kind="stable"), np.zeros(1, np.int64)
        if down == 1:
            return np.zeros(1, np.int64), np.argsort(self.distances[0], kind="stable")
        return profile_order(self.distances), profile_order(self.distances.T)

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The distances of the first and of the last colour: few pairs lie outside."""
        return colour_limits(self.run.summary["quantiles"])

    def with_images(self, pairs: Sequence[Pair]) -> WithImages:
        """Return pairs with their images in place of rows and columns."""
        return [(self.first[p.left], self.second[p.right], p.distance) for p in pairs]


@dataclass(frozen=True)
class _Ends:
    """Row and column of a place in a band of `width` columns that begins with row `top`."""

    top: int
    width: int

    def __call__(self, place: int) -> tuple[int, int]:
        row, column = divmod(place, self.width)
        return row + self.top, column


def profile_order(matrix: NDArray[np.float32]) -> NDArray[np.int64]:
    """Order rows so that neighbours have similar numbers: leaves of a tree of their distances."""
    exact = matrix.astype(np.float64) - matrix.mean(0, dtype=np.float64)
    squares = np.square(exact).sum(1)
    upper = np.triu_indices(len(exact), 1)
    apart = squares[upper[0]] + squares[upper[1]] - 2 * (exact @ exact.T)[upper]
    return leaf_order(np.sqrt(np.maximum(apart, 0)))


def _bands(run: FinishedRun) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (first row, rows) of bands of the matrix."""
    matrix: Any = run.distances
    height = matrix.chunks[0][0]
    for top in range(0, matrix.shape[0], height):
        yield top, np.asarray(matrix[top : top + height])
