"""How the distances of many pairs are spread: a histogram and pairs that stand for it, in a pass.

In: distances chunk by chunk, however many. Out: `Spread`. Read first: `Gathering`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ....pipeline.images.survey import ImageRecord

FEW = 6  # pairs of each sort
_BINS = 12, 96  # of the histogram: at least, at most

Ends = Callable[[int], tuple[int, int]]
"""The two images of the pair at a place of a chunk."""


@dataclass(frozen=True)
class Pair:
    """Two images by their rows in the matrix or their lines in a table, and their distance."""

    left: int
    right: int
    distance: float


Numbered = list[tuple[ImageRecord, ImageRecord, float]]
"""Pairs with their images."""


@dataclass(frozen=True)
class Spread:
    """The distances of all pairs.

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

    def numbered(self, pairs: Sequence[Pair]) -> Numbered:
        """Return pairs with their images in place of numbers."""


class Gathering:
    """Gathers the distances of a run chunk by chunk.

    Parameters
    ----------
    quantiles
        Of all distances, as in ``summary.json``.
    pairs
        Number of all distances.
    """

    def __init__(self, quantiles: Mapping[str, float], pairs: int) -> None:
        self.low, self.middle, self.high = (float(quantiles[q]) for q in ("0.0", "0.5", "1.0"))
        few, many = _BINS
        bins = min(many, max(few, round(2 * pairs ** (1 / 3))))  # the rule of Rice
        self._counts = np.zeros(bins, np.int64)
        self._closest: list[Pair] = []
        self._median: list[Pair] = []
        self._farthest: list[Pair] = []

    def add(self, values: NDArray[np.float32], ends: Ends) -> None:
        """Add distances; `ends` gives the images of the pair at a place of `values`."""
        span = self.low, max(self.high, self.low + 1e-6)  # where all are equal, too
        exact = values.astype(np.float64)
        self._counts += np.histogram(exact, len(self._counts), span)[0]
        for found, ranks in (
            (self._closest, values),
            (self._median, np.abs(values - self.middle)),
            (self._farthest, -values),
        ):
            for n in smallest(ranks, FEW).tolist():
                left, right = ends(n)
                found.append(Pair(left, right, float(values[n])))

    def spread(self) -> Spread:
        """Return what was gathered."""
        middle = self.middle
        return Spread(
            self._counts,
            self.low,
            self.high,
            sorted(self._closest, key=lambda pair: pair.distance)[:FEW],
            sorted(self._median, key=lambda pair: abs(pair.distance - middle))[:FEW],
            sorted(self._farthest, key=lambda pair: -pair.distance)[:FEW],
        )


def smallest(values: NDArray[np.floating], few: int) -> NDArray[np.int64]:
    """Return the places of the `few` smallest numbers, in no order."""
    if len(values) <= few:
        return np.arange(len(values))
    return np.argpartition(values, few)[:few]


def spread_out(count: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` of `count` images, at equal steps through the collection."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def colour_limits(quantiles: Mapping[str, float]) -> tuple[float, float]:
    """Return the distances of the first and of the last colour: few pairs lie outside."""
    low, high = float(quantiles["0.01"]), float(quantiles["0.99"])
    return (low, high) if high > low else (low, low + 1e-3)
