"""What a page shows of the distances of all pairs: read band by band, however many there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....pipeline.analysis.hierarchy import leaf_order
from ....pipeline.analysis.threshold import Suggestion, suggest_threshold
from ....pipeline.images.survey import ImageRecord
from ....pipeline.runs.run import FinishedRun
from ...session.screen import Screen
from ...session.settings import Settings
from ..close import bands
from ..duplicates import Duplicates, find_duplicates
from .spread import Gathering, Pair, Spread, WithImages, colour_limits, spread_out

MOST = 2500  # images whose distances to one another stand in the page
GROUPS = 40  # groups of near-duplicates that are shown
MEMBERS = 12  # images of a group that are shown


@dataclass(frozen=True)
class Statistics(Spread):
    """Distances of all pairs in one pass over the matrix.

    Attributes
    ----------
    nearest
        float32 [images]: distance of each image to its nearest neighbour.
    neighbour
        int64 [images]: that neighbour.
    mean
        float64 [images]: mean distance of each image to the others.
    """

    nearest: NDArray[np.float32]
    neighbour: NDArray[np.int64]
    mean: NDArray[np.float64]


class PairsSeen:
    """The distances of a run of all pairs, each part read when it is first asked for.

    Up to `MOST` images are all shown. Of more, the page shows a sample: images at equal steps
    through the collection, and those of the pairs and groups that it names.
    """

    def __init__(self, run: FinishedRun, images: Sequence[ImageRecord], screen: Screen) -> None:
        self.run = run
        self.images = images
        self._screen = screen

    @cached_property
    def statistics(self) -> Statistics:
        """Counts, extreme pairs and nearest neighbours."""
        return _statistics(self.run, self.run.summary["quantiles"])

    @cached_property
    def suggestion(self) -> Suggestion:
        """The threshold for near-duplicates that the distances suggest."""
        return suggest_threshold(self.statistics.nearest)

    @cached_property
    def duplicates(self) -> Duplicates:
        """Groups of near-duplicates below that threshold."""
        below = self.suggestion.below
        return find_duplicates([self.run.path], Settings(), self._screen, below=below)

    @cached_property
    def shown(self) -> NDArray[np.int64]:
        """The rows of the matrix that the page shows, ascending."""
        count = len(self.images)
        if count <= MOST:
            return spread_out(count, count)
        places = {record.path: n for n, record in enumerate(self.images)}
        seen = self.statistics
        named = [
            n for p in (*seen.closest, *seen.median, *seen.farthest) for n in (p.left, p.right)
        ]
        for group in self.duplicates.groups[:GROUPS]:
            named += [places[path] for path in group.paths[:MEMBERS]]
        return np.union1d(spread_out(count, MOST), np.asarray(named, np.int64))

    @cached_property
    def distances(self) -> NDArray[np.float32]:
        """Distances of the images shown: float32 [shown, shown]."""
        return distances_of(self.run, self.shown)

    @cached_property
    def condensed(self) -> NDArray[np.float32]:
        """The same in SciPy's condensed form: float32 [shown (shown - 1) / 2]."""
        half: NDArray[np.float32] = self.distances[np.triu_indices(len(self.shown), 1)]
        return half

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The images shown in clustered order: alike ones stand side by side."""
        return leaf_order(self.condensed)

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The distances of the first and of the last colour: few pairs lie outside."""
        return colour_limits(self.run.summary["quantiles"])

    def with_images(self, pairs: Sequence[Pair]) -> WithImages:
        """Return pairs with their images in place of rows."""
        return [(self.images[p.left], self.images[p.right], p.distance) for p in pairs]


def distances_of(
    run: FinishedRun, rows: NDArray[np.int64], columns: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Return some distances of a run that has a matrix: float32 [rows, columns].

    `rows` ascend; without `columns` they are the columns, too. The matrix is read band by band.
    """
    matrix: Any = run.distances
    height, parts = matrix.chunks[0][0], []
    across = rows if columns is None else columns
    for top in range(0, matrix.shape[0], height):
        within = rows[(rows >= top) & (rows < top + height)]
        if len(within):
            band = np.asarray(matrix[top : top + height])
            parts.append(band[np.ix_(within - top, across)])
    return np.concatenate(parts)


def _statistics(run: FinishedRun, quantiles: dict[str, float]) -> Statistics:
    gathering = Gathering(quantiles, int(run.summary["pairs"]))
    nearest, neighbour, mean = [], [], []
    for top, band in bands(run):
        neighbour.append(band.argmin(1))
        nearest.append(band[np.arange(len(band)), neighbour[-1]])
        finite = np.where(np.isfinite(band), band, 0)
        mean.append(finite.sum(1, dtype=np.float64) / max(band.shape[1] - 1, 1))
        above = np.arange(band.shape[1]) > (np.arange(len(band)) + top)[:, None]
        _add(gathering, band, np.flatnonzero(above), top)
    return Statistics(
        **vars(gathering.spread()),
        nearest=np.concatenate(nearest),
        neighbour=np.concatenate(neighbour),
        mean=np.concatenate(mean),
    )


def _add(
    gathering: Gathering, band: NDArray[np.float32], places: NDArray[np.int64], top: int
) -> None:
    """Add the distances at some places of a band that begins with row `top`."""

    def ends(n: int) -> tuple[int, int]:
        row, column = divmod(int(places[n]), band.shape[1])
        return row + top, column

    gathering.add(band.ravel()[places], ends)
