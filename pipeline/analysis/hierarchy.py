"""Hierarchical clustering of a collection: tree, order of its leaves, cuts, medoids.

Distances come in SciPy's condensed form (`scipy.spatial.distance.squareform`): the pair (i, j) with
i < j is at ``n * i - i * (i + 1) // 2 + j - i - 1``.

Memory, besides the condensed distances that are given (4 n² bytes in float64): 4 n² bytes for
`cluster_tree`; 24 n² bytes for `leaf_order` up to `OPTIMAL_UP_TO` images, above it only lists of n
numbers; a few arrays of n numbers for `cut` and `medoids`.
"""

from math import isqrt

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ...cache.errors import LpipstoreError, UsageError, setting

METHODS = ("average", "complete", "single")
OPTIMAL_UP_TO = 2000
"""Images whose leaves are ordered optimally; measured on one core: 0.2 s for 1,000, 1.4 s for
2,000, 20 s for 5,000."""


def cluster_tree(condensed: NDArray[np.floating], method: str = "average") -> NDArray[np.float64]:
    """Cluster images from the leaves up.

    Parameters
    ----------
    condensed
        Distances of all pairs in condensed form; of any sign, as some heads have negative weights.
    method
        How far two clusters are apart: the "average" (UPGMA), largest ("complete") or smallest
        ("single") distance of their images.

    Returns
    -------
    ndarray of shape (n - 1, 4), float64
        The tree as SciPy's `linkage` writes it, its heights ascending; of shape (0, 4) for no image
        or one.

    Raises
    ------
    UsageError
        There is no such method.
    LpipstoreError
        Distances are missing or not finite.
    """
    if method not in METHODS:
        known = ", ".join(METHODS)
        raise UsageError(f"unknown {setting('linkage')} {method!r}: known are {known}")
    if not len(condensed):
        return np.empty((0, 4))
    need_finite(condensed)
    tree: NDArray[np.float64] = linkage(np.asarray(condensed, np.float64), method)
    return tree


def leaf_order(
    condensed: NDArray[np.floating], tree: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Order images so that neighbours are alike, as far as the tree allows.

    Up to `OPTIMAL_UP_TO` images the sum of the distances of neighbours is the smallest of all
    orders of the tree (SciPy; Bar-Joseph et al. 2001). For more images each merge turns its two
    branches so that their closest ends meet (Gruvaeus and Wainer 1972), in milliseconds.

    Parameters
    ----------
    condensed
        Distances of all pairs in condensed form.
    tree
        The result of `cluster_tree`; by default, that of average linkage.

    Returns
    -------
    ndarray of shape (n,), int64
        The images in order.

    Raises
    ------
    LpipstoreError
        Distances are missing or not finite.

    Notes
    -----
    No image at all and one image have the same condensed form, of length 0. Without a tree it is
    taken for one image; a collection without images has no order to ask for.
    """
    if tree is None:
        tree = cluster_tree(condensed)
    if not len(condensed):
        return np.zeros(len(tree) + 1, np.int64)
    count = len(tree) + 1
    if count > OPTIMAL_UP_TO:
        return _turned(condensed, tree)
    need_finite(condensed)
    # SciPy refuses negative distances; a constant on all of them changes no order
    lift = max(0.0, -float(condensed.min()))
    lifted = tree + np.array([0, 0, lift, 0])
    order = leaves_list(optimal_leaf_ordering(lifted, np.asarray(condensed, np.float64) + lift))
    return np.asarray(order, np.int64)


def _turned(condensed: NDArray[np.floating], tree: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order leaves so that at each merge the closest ends of the two branches meet."""
    count = len(tree) + 1
    branches: list[list[int]] = [[leaf] for leaf in range(count)]

    def apart(i: int, j: int) -> float:
        return float(condensed[place(min(i, j), max(i, j), count)])

    for left, right in tree[:, :2].astype(np.int64).tolist():
        first, second = branches[left], branches[right]
        branches[left] = branches[right] = []
        ends = [(apart(i, j), i, j) for i in (first[-1], first[0]) for j in (second[0], second[-1])]
        _, i, j = min(ends, key=lambda end: end[0])  # of equals the one that turns the least
        if i != first[-1]:
            first.reverse()
        if j != second[0]:
            second.reverse()
        first.extend(second)
        branches.append(first)
    return np.array(branches[-1], np.int64)


def cut(
    tree: NDArray[np.float64], *, count: int | None = None, below: float | None = None
) -> NDArray[np.int64]:
    """Cut a tree into clusters.

    Parameters
    ----------
    tree
        The result of `cluster_tree` for at least one image.
    count
        Number of clusters: exactly so many, also where several merges have the same height; of more
        than there are images, one for each image.
    below
        Undo all merges of this height or higher instead.

    Returns
    -------
    ndarray of shape (n,), int64
        The cluster of each image: 0 is the largest; of equally large ones that of the first image.

    Raises
    ------
    UsageError
        Not exactly one of `count` and `below` is given, or `count` is less than 1.
    """
    if (count is None) == (below is None):
        raise UsageError(f"give either {setting('count')} or {setting('below')}")
    images = len(tree) + 1
    if count is not None and count < 1:
        raise UsageError(f"{setting('count', count)} must be at least 1")
    if below is not None:
        merges = int(np.searchsorted(tree[:, 2], below))  # heights ascend
    else:
        merges = max(0, images - (count or 1))
    children = tree[:merges, :2].astype(np.int64).ravel()
    parents = np.repeat(np.arange(images, images + merges), 2)
    links = coo_array((np.ones(len(children), np.int8), (children, parents)), (2 * images,) * 2)
    return by_size(connected_components(links, directed=False)[1][:images])


def by_size(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Number clusters anew: by size, the largest first, of equals by first image."""
    _, first, inverse, sizes = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(first), np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(len(first))
    return rank[inverse]


def medoids(distances: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the image of each cluster with the smallest mean distance to the others in it.

    Parameters
    ----------
    distances
        The matrix [n, n], or its condensed form.
    labels
        The cluster of each image: 0, 1, … without a gap.

    Returns
    -------
    ndarray of shape (clusters,), int64
        The medoids; of equals the first image.

    Raises
    ------
    LpipstoreError
        Distances are missing or not finite.
    """
    images = len(labels)
    sums = np.zeros(images)
    start = 0
    for i in range(images):
        if distances.ndim == 1:
            row = distances[start : start + images - i - 1]
            start += len(row)
        else:
            row = distances[i, i + 1 :]
        mates = np.flatnonzero(labels[i + 1 :] == labels[i])
        near = row[mates].astype(np.float64)
        sums[i] += near.sum()
        sums[mates + i + 1] += near
    need_finite(sums)
    order = np.lexsort((np.arange(images), sums, labels))
    starts = np.searchsorted(labels[order], np.arange(labels.max(initial=-1) + 1))
    return np.asarray(order[starts], np.int64)


def place(i: int, j: int, count: int) -> int:
    """Return where the pair (i, j), i < j, of `count` images stands in the condensed form."""
    return count * i - i * (i + 1) // 2 + j - i - 1


def images_of(condensed: NDArray[np.floating]) -> int:
    """Return the number of images of a condensed form that is not empty."""
    return (1 + isqrt(1 + 8 * len(condensed))) // 2


def need_finite(distances: NDArray[np.floating]) -> None:
    """Raise `LpipstoreError` if distances are missing (NaN) or infinite."""
    if not np.isfinite(distances.sum(dtype=np.float64)):
        raise LpipstoreError(
            "some distances are missing or not finite, as of a run whose files were lost: "
            "make the run again"
        )
