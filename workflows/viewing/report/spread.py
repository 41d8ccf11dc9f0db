"""How the distances of some pairs are spread: counts, and the pairs that give them a face."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EXTREMES = 6
_BINS = 12, 96  # of the histogram: at least, at most


@dataclass(frozen=True)
class Pair:
    """Two images by their numbers among the usable ones, and their distance."""

    left: int
    right: int
    distance: float


@dataclass(frozen=True)
class Spread:
    """Distances of pairs.

    Attributes
    ----------
    counts
        int64 [bins]: pairs in bins of equal width from `low` to `high`.
    low, high
        Smallest and largest distance.
    closest, median, farthest
        The pairs with the smallest distances, those around the median, the largest.
    """

    counts: NDArray[np.int64]
    low: float
    high: float
    closest: list[Pair]
    median: list[Pair]
    farthest: list[Pair]


def bins_for(pairs: int) -> int:
    """Return the number of bins of a histogram, by the rule of Rice within limits."""
    few, many = _BINS
    return min(many, max(few, round(2 * float(np.cbrt(pairs)))))


def counted(
    distances: NDArray[np.floating], bins: int, low: float, high: float
) -> NDArray[np.int64]:
    """Return the number of distances in each of `bins` bins from `low` to `high`."""
    span = low, max(high, low + 1e-6)  # where all are equal, too
    return np.asarray(np.histogram(distances.astype(np.float64), bins, span)[0], np.int64)


def smallest(values: NDArray[np.floating], most: int = EXTREMES) -> NDArray[np.int64]:
    """Return the places of the `most` smallest numbers, in no order."""
    if len(values) <= most:
        return np.arange(len(values))
    return np.asarray(np.argpartition(values, most)[:most], np.int64)


def spread_of(
    left: NDArray[np.int64], right: NDArray[np.int64], distances: NDArray[np.float32]
) -> Spread:
    """Return the spread of a list of pairs, of which there is at least one."""
    low, middle, high = (float(np.quantile(distances, level)) for level in (0, 0.5, 1))

    def ranked(ranks: NDArray[np.floating]) -> list[Pair]:
        chosen = smallest(ranks)
        chosen = chosen[np.argsort(ranks[chosen], kind="stable")]
        return numbered(left, right, distances, chosen.tolist())

    counts = counted(distances, bins_for(len(distances)), low, high)
    around = np.abs(distances - middle)
    return Spread(counts, low, high, ranked(distances), ranked(around), ranked(-distances))


def numbered(
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    distances: NDArray[np.float32],
    places: Sequence[int],
) -> list[Pair]:
    """Return some pairs of a list."""
    return [Pair(int(left[n]), int(right[n]), float(distances[n])) for n in places]
