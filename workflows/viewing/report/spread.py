"""How the distances of some pairs are spread: counts, and the pairs that give them a face."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ....pipeline.images.survey import ImageRecord

EXTREMES = 6
_BINS = 12, 96  # of the histogram: at least, at most

Ends = Callable[[int], tuple[int, int]]
"""The two images of the pair at a place of a chunk."""


@dataclass(frozen=True)
class Pair:
    """Two images by their numbers among the usable ones of their side, and their distance."""

    left: int
    right: int
    distance: float


WithImages = list[tuple[ImageRecord, ImageRecord, float]]
"""Pairs with their images."""


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


class Seen(Protocol):
    """The distances of a run as the page shows them, whatever kind it is of."""

    @property
    def statistics(self) -> Spread:
        """All distances in a few numbers and pairs."""

    def with_images(self, pairs: Sequence[Pair]) -> WithImages:
        """Return pairs with their images in place of numbers."""


def bins_for(pairs: int) -> int:
    """Return the number of bins of a histogram, by the rule of Rice within limits."""
    few, many = _BINS
    return min(many, max(few, round(2 * math.cbrt(pairs))))


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


class Gathering:
    """Gathers the distances of a run chunk by chunk, however many.

    Parameters
    ----------
    quantiles
        Of all distances, as in ``summary.json``.
    pairs
        Number of all distances.
    """

    def __init__(self, quantiles: Mapping[str, float], pairs: int) -> None:
        self.low, self.middle, self.high = (float(quantiles[q]) for q in ("0.0", "0.5", "1.0"))
        self._counts = np.zeros(bins_for(pairs), np.int64)
        self._closest: list[Pair] = []
        self._median: list[Pair] = []
        self._farthest: list[Pair] = []

    def add(self, values: NDArray[np.float32], ends: Ends) -> None:
        """Add distances; `ends` gives the images of the pair at a place of `values`."""
        self._counts += counted(values, len(self._counts), self.low, self.high)
        for found, ranks in (
            (self._closest, values),
            (self._median, np.abs(values - self.middle)),
            (self._farthest, -values),
        ):
            for n in smallest(ranks).tolist():
                left, right = ends(n)
                found.append(Pair(left, right, float(values[n])))

    def spread(self) -> Spread:
        """Return what was gathered."""
        middle = self.middle
        return Spread(
            self._counts,
            self.low,
            self.high,
            sorted(self._closest, key=lambda pair: pair.distance)[:EXTREMES],
            sorted(self._median, key=lambda pair: abs(pair.distance - middle))[:EXTREMES],
            sorted(self._farthest, key=lambda pair: -pair.distance)[:EXTREMES],
        )


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


def spread_out(count: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` of `count` images, at equal steps through the collection."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def colour_limits(quantiles: Mapping[str, float]) -> tuple[float, float]:
    """Return the distances of the first and of the last colour: few pairs lie outside."""
    low, high = float(quantiles["0.01"]), float(quantiles["0.99"])
    return (low, high) if high > low else (low, low + 1e-3)
