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
from .spread import EXTREMES, Pair, Spread, bins_for, counted, smallest

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
        quantiles = self.run.summary["quantiles"]
        low, high = float(quantiles["0.01"]), float(quantiles["0.99"])
        return (low, high) if high > low else (low, low + 1e-3)


def distances_of(run: FinishedRun, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the distances of some images of a run of all pairs: float32 [rows, rows].

    `rows` ascend. The matrix is read band by band.
    """
    matrix: Any = run.distances
    height, parts = matrix.chunks[0][0], []
    for top in range(0, matrix.shape[0], height):
        within = rows[(rows >= top) & (rows < top + height)]
        band = np.asarray(matrix[top : top + height])
        parts.append(band[np.ix_(within - top, rows)])
    return np.concatenate(parts)


def spread_out(count: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` of `count` images, at equal steps through the collection."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _statistics(run: FinishedRun, quantiles: dict[str, float]) -> Statistics:
    low, middle, high = (float(quantiles[level]) for level in ("0.0", "0.5", "1.0"))
    bins = bins_for(int(run.summary["pairs"]))
    counts = np.zeros(bins, np.int64)
    found: dict[str, list[Pair]] = {"closest": [], "median": [], "farthest": []}
    nearest, neighbour, mean = [], [], []
    for top, band in bands(run):
        neighbour.append(band.argmin(1))
        nearest.append(band[np.arange(len(band)), neighbour[-1]])
        finite = np.where(np.isfinite(band), band, 0)
        mean.append(finite.sum(1, dtype=np.float64) / max(band.shape[1] - 1, 1))
        places = np.flatnonzero(np.arange(band.shape[1]) > (np.arange(len(band)) + top)[:, None])
        values = band.ravel()[places]
        counts += counted(values, bins, low, high)
        for name, ranks in (
            ("closest", values),
            ("median", np.abs(values - middle)),
            ("farthest", -values),
        ):
            for n in smallest(ranks):
                row, column = divmod(int(places[n]), band.shape[1])
                found[name].append(Pair(row + top, column, float(values[n])))
    closest = sorted(found["closest"], key=lambda p: p.distance)[:EXTREMES]
    median = sorted(found["median"], key=lambda p: abs(p.distance - middle))[:EXTREMES]
    farthest = sorted(found["farthest"], key=lambda p: -p.distance)[:EXTREMES]
    return Statistics(
        counts,
        low,
        high,
        closest,
        median,
        farthest,
        np.concatenate(nearest),
        np.concatenate(neighbour),
        np.concatenate(mean),
    )
