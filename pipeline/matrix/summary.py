"""Summary statistics of a distance matrix: mean, standard error and quantiles."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_BINS = 1 << 16


@dataclass(frozen=True)
class Figures:
    """The distances of some pairs in a few numbers.

    Attributes
    ----------
    mean, std
        Over the pairs; None if there are none.
    stderr
        Standard error of the mean; None if the pairs do not determine it.
    quantiles
        By the numbers of `QUANTILES` as text; None if there are no pairs.
    """

    mean: float | None = None
    std: float | None = None
    stderr: float | None = None
    quantiles: dict[str, float] | None = None

    @classmethod
    def of(cls, distances: NDArray[np.float64], stderr: float | None) -> "Figures":
        """Compute the figures of at least one distance but for the standard error."""
        levels = np.quantile(distances, QUANTILES).tolist()
        quantiles = {str(q): level for q, level in zip(QUANTILES, levels, strict=True)}
        return cls(float(distances.mean()), float(distances.std()), stderr, quantiles)


def pair_summary(
    band: Callable[[int, int], NDArray[np.float32]], count: int, height: int
) -> Figures:
    """Summarise the distances of all pairs of a symmetric matrix, band by band.

    Parameters
    ----------
    band
        ``band(start, stop)`` returns rows `start` to `stop` of the matrix, float32.
    count
        Rows of the matrix, at least 2.
    height
        Rows per band.

    Returns
    -------
    Figures
        `stderr` is from the jackknife over *images* (Efron & Stein 1981: pairs share images and are
        not independent, so std/√pairs would be too small; None for fewer than three images).
        `quantiles` are those of `numpy.quantile` (linear), exact at 0 and 1 and otherwise to
        1/65536 of the range.
    """
    totals = np.zeros(count)
    squares = 0.0
    for start in range(0, count, height):
        rows = band(start, min(start + height, count)).astype(np.float64)
        totals[start : start + len(rows)] = rows.sum(1)
        squares += float(np.square(rows).sum())

    def above() -> Iterator[NDArray[np.float32]]:
        for start in range(0, count, height):
            rows = band(start, min(start + height, count))
            yield rows[_above_diagonal(start, rows.shape)]

    pairs = count * (count - 1) // 2
    mean, std = _moments(totals.sum() / 2, squares / 2, pairs)
    return Figures(mean, std, jackknife(totals, totals.sum() / 2), _quantiles(above))


def cross_summary(
    band: Callable[[int, int], NDArray[np.float32]], shape: tuple[int, int], height: int
) -> Figures:
    """Summarise the distances between two collections, band by band, as `pair_summary` does.

    The standard error adds the jackknife variances over the images of either side (a two-sample
    U-statistic; None if a side has only one image).
    """
    count, width = shape
    down, across = np.zeros(count), np.zeros(width)
    squares = 0.0

    def bands() -> Iterator[NDArray[np.float32]]:
        for start in range(0, count, height):
            yield band(start, min(start + height, count))

    for start, rows in zip(range(0, count, height), bands(), strict=True):
        exact = rows.astype(np.float64)
        down[start : start + len(rows)] = exact.sum(1)
        across += exact.sum(0)
        squares += float(np.square(exact).sum())
    sides = [(down, width), (across, count)]
    variances = [
        (len(totals) - 1) / len(totals) * np.square(left_out - left_out.mean()).sum()
        for totals, others in sides
        if len(totals) > 1
        for left_out in [(totals.sum() - totals) / ((len(totals) - 1) * others)]
    ]
    mean, std = _moments(down.sum(), squares, count * width)
    stderr = float(np.sqrt(sum(variances))) if len(variances) == 2 else None
    return Figures(mean, std, stderr, _quantiles(bands))


def _moments(total: float, squares: float, pairs: int) -> tuple[float, float]:
    mean = float(total) / pairs
    return mean, float(np.sqrt(max(squares / pairs - mean**2, 0.0)))


def _above_diagonal(start: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.arange(shape[1])[None, :] > np.arange(start, start + shape[0])[:, None]


def mean_and_error(totals: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Return the mean distance over all pairs, and its standard error (see `jackknife`).

    `totals` has the sum of the distances of each image to all others. The mean is None for fewer
    than two images.
    """
    n = len(totals)
    if n < 2:
        return None, None
    total = float(totals.sum()) / 2
    return total / (n * (n - 1) / 2), jackknife(totals, total)


def jackknife(totals: NDArray[np.float64], total: float) -> float | None:
    """Return the standard error of the mean over pairs, from the means that leave one image out.

    `totals` has the sum of the distances of each image to all others, and `total` is the sum over
    pairs. None for fewer than three images.
    """
    n = len(totals)
    if n < 3:
        return None
    left_out = (total - totals) / ((n - 1) * (n - 2) / 2)
    return float(np.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum()))


def _quantiles(parts: Callable[[], Iterator[NDArray[np.float32]]]) -> dict[str, float]:
    """Return quantiles of all numbers in the parts, which are iterated twice."""
    spans = [(part.min(), part.max()) for part in parts() if part.size]
    low, high = float(min(span[0] for span in spans)), float(max(span[1] for span in spans))
    histogram = np.zeros(_BINS, np.int64)
    for part in parts():
        histogram += np.histogram(part, bins=_BINS, range=(low, high))[0]
    below = np.cumsum(histogram)
    last = int(below[-1]) - 1

    def ranked(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the numbers of these ranks, approximated by the middle of their bins."""
        bins = np.searchsorted(below, ranks, side="right")
        middle = low + (bins + 0.5) * (high - low) / _BINS
        return np.where(ranks == 0, low, np.where(ranks == last, high, middle))

    # numpy.quantile's default: linear between the two numbers around rank q (pairs - 1)
    positions = np.array(QUANTILES) * last
    lower = np.floor(positions).astype(np.int64)
    upper = np.minimum(lower + 1, last)
    ends = ranked(lower), ranked(upper)
    values = ends[0] + (positions - lower) * (ends[1] - ends[0])
    return {str(q): float(value) for q, value in zip(QUANTILES, values, strict=True)}
