"""A threshold for near-duplicates, suggested by the distances of a collection itself."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_GRID = 1024
_BANDWIDTH = 0.35  # of Scott's rule, which smooths two heaps into one
_PROMINENT = 0.03  # of the highest peak
_DEEP = 0.6  # a valley is at most this share of the lower of its two peaks
_FEW = 8  # images: fewer have no distribution


@dataclass(frozen=True)
class Suggestion:
    """A threshold, why, and whether near-duplicates stand apart clearly."""

    below: float
    reason: str
    clear: bool


def suggest_threshold(nearest: NDArray[np.floating]) -> Suggestion:
    """Suggest below which distance two images of a collection are near-duplicates.

    Images that have a near-duplicate are much closer to their nearest neighbour than others to
    theirs, so that distances to nearest neighbours lie in two heaps. The threshold is the bottom of
    the valley between them, of a density estimated over square roots of distances, which are about
    as wide for small distances as for large ones.

    Parameters
    ----------
    nearest
        Distance of each image to its nearest neighbour.
    """
    from scipy.signal import find_peaks  # 0.3 s, which a given threshold need not wait for
    from scipy.stats import gaussian_kde

    distances = np.asarray(nearest, np.float64)
    distances = np.sqrt(np.maximum(distances[np.isfinite(distances)], 0))
    if len(distances) < _FEW or np.ptp(distances) < 1e-6:
        return _unclear(distances, "there are too few different distances to tell heaps apart")
    density = gaussian_kde(distances, lambda kde: _BANDWIDTH * kde.scotts_factor())
    grid = np.linspace(-0.1, distances.max() + 0.1, _GRID)
    heights = density(grid)
    peaks, shape = find_peaks(heights, prominence=_PROMINENT * heights.max())
    if len(peaks) < 2:
        return _unclear(distances, "nearest neighbours are about equally far from all images")
    first, second = np.sort(peaks[np.argsort(shape["prominences"])[-2:]])
    valley = first + int(np.argmin(heights[first:second]))
    if heights[valley] > _DEEP * min(heights[first], heights[second]):
        return _unclear(distances, "no heap of close neighbours stands apart from the others")
    below = _rounded(grid[valley] ** 2)
    close = int((distances**2 < below).sum())
    return Suggestion(
        below,
        f"{close:,} of {len(distances):,} images have a neighbour at about "
        f"{max(grid[first], 0) ** 2:.2g}, the others at about {grid[second] ** 2:.2g}, and few in "
        f"between at {below:g}",
        clear=True,
    )


def _unclear(distances: NDArray[np.float64], why: str) -> Suggestion:
    low = float(np.quantile(distances, 0.05)) ** 2 if len(distances) else 0.0
    below = max(_rounded(low / 2), 0.001)
    return Suggestion(
        below, f"{why}, so that only what is far closer than usual counts: {below:g}", clear=False
    )


def _rounded(distance: float) -> float:
    return float(f"{distance:.2g}")
