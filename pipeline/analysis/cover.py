"""A few images that cover a collection: greedy k-centre."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import UsageError, setting
from .hierarchy import need_finite


def farthest_first(
    distance_rows: Callable[[int], NDArray[np.floating]],
    count: int,
    n: int,
    start: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pick images one by one, each the farthest from those picked before.

    For distances that obey the triangle inequality no `count` images cover the collection with less
    than half the radius reached here (Gonzalez 1985). LPIPS is a squared distance: the square roots
    obey it for heads without negative weights, hence the factor is 4 for LPIPS itself.

    Parameters
    ----------
    distance_rows
        Returns the distances [n] of an image to all images. It is called once for each picked
        image, so that only those rows of a matrix on disk are read; without `start` also once for
        every image, in order.
    count
        Images to pick; of more than `n`, all are picked.
    n
        Number of images.
    start
        The first image to pick; by default the medoid, which has the smallest mean distance.

    Returns
    -------
    indices : ndarray of shape (min(count, n),), int64
        The images, in the order picked; of equally far ones the first.
    radii : ndarray of shape (min(count, n),), float64
        The largest distance of any image to the nearest of those picked so far.

    Raises
    ------
    UsageError
        `count` is less than 1, or `start` is no image.
    LpipstoreError
        Distances are missing or not finite.
    """
    if count < 1:
        raise UsageError(f"{setting('count', count)} must be at least 1")
    if start is not None and not 0 <= start < n:
        raise UsageError(f"image {start} is none of {n}")
    kept = min(count, n)
    indices, radii = np.empty(kept, np.int64), np.empty(kept)
    nearest = np.full(n, np.inf)  # distance of each image to the picked ones
    left = np.ones(n, np.bool_)
    picked = (medoid(distance_rows, n) if n else 0) if start is None else start
    for number in range(kept):
        if number:
            picked = int(np.argmax(np.where(left, nearest, -np.inf)))
        row = np.asarray(distance_rows(picked), np.float64)
        need_finite(row)
        left[picked] = False
        np.minimum(nearest, row, out=nearest)
        nearest[picked] = 0  # also for heads of negative weights, where others may be closer
        indices[number], radii[number] = picked, nearest.max()
    return indices, radii


def medoid(distance_rows: Callable[[int], NDArray[np.floating]], n: int) -> int:
    """Return the image with the smallest mean distance to all, of equals the first."""
    sums = np.array([distance_rows(i).sum(dtype=np.float64) for i in range(n)])
    need_finite(sums)
    return int(np.argmin(sums))
