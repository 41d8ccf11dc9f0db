"""Hierarchical clustering of a collection: tree, order of its leaves, cuts, medoids.

Distances come in SciPy's condensed form (`scipy.spatial.distance.squareform`): the pair (i, j) with
i < j is at ``n * i - i * (i + 1) // 2 + j - i - 1``.

Memory, besides the condensed distances that are given: 8 n² bytes for `cluster_tree` (4 n² if they
are float64 already); up to 24 n² bytes for `leaf_order` up to `OPTIMAL_UP_TO` images, above it only
lists of n numbers; a few arrays of n numbers for `cut` and `medoids`.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ...cache.errors import LpipstoreError, UsageError, setting
from .leaves import optimal_order, turned_order

METHODS = ("average", "complete", "single")
OPTIMAL_UP_TO = 2000
"""Images whose leaves are ordered optimally; beyond, the time grows with up to the cube."""


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
    orders that the tree allows (Bar-Joseph et al. 2001). For more images each merge turns its two
    branches so that their closest ends meet (Gruvaeus and Wainer 1972), in milliseconds; see
    `lpipstore.pipeline.analysis.leaves`.

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
    need_finite(condensed)
    ordered = optimal_order if len(tree) < OPTIMAL_UP_TO else turned_order
    return ordered(condensed, tree)


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


def need_finite(distances: NDArray[np.floating]) -> None:
    """Raise `LpipstoreError` if distances are missing (NaN) or infinite."""
    if not np.isfinite(distances.sum(dtype=np.float64)):
        raise LpipstoreError(
            "some distances are missing or not finite, as of a run whose files were lost: "
            "make the run again"
        )
