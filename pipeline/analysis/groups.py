"""Groups of near-duplicates out of close pairs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

LINKAGES = ("single", "complete")


def group_pairs(
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    distances: NDArray[np.floating],
    count: int,
    kind: str = "single",
) -> list[NDArray[np.int64]]:
    """Return groups of at least two images, ordered by their first images.

    Parameters
    ----------
    left, right, distances
        All pairs closer than some threshold, each once, and their distances.
    count
        Number of images.
    kind
        "single": connected components, in which images hang together by chains of close pairs.
        "complete": no two images of a group are farther apart than the threshold, by complete
        linkage within each component.

    Returns
    -------
    list of ndarray
        The images of each group, ascending.
    """
    ones = np.ones(len(left), np.int8)
    graph = coo_array((ones, (left, right)), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    components = _members(label)
    if kind == "single":
        return components
    from scipy.cluster.hierarchy import fcluster, linkage

    local = np.empty(count, np.int64)
    of_pair = label[left]
    order = np.argsort(of_pair, kind="stable")
    bounds = np.searchsorted(of_pair[order], [label[group[0]] for group in components])
    ends = np.searchsorted(of_pair[order], [label[group[0]] for group in components], side="right")
    groups: list[NDArray[np.int64]] = []
    for group, start, end in zip(components, bounds, ends, strict=True):
        pairs = order[start:end]
        local[group] = np.arange(len(group))
        matrix = _condensed(local[left[pairs]], local[right[pairs]], distances[pairs], len(group))
        known = matrix[np.isfinite(matrix)].max()
        far = 2 * known + 1  # of pairs that are not close
        tree = linkage(np.where(np.isfinite(matrix), matrix, far), "complete")
        cut = fcluster(tree, known, "distance")
        groups += [group[members] for members in _members(cut)]
    return sorted(groups, key=lambda group: int(group[0]))


def _members(label: NDArray[np.integer]) -> list[NDArray[np.int64]]:
    """Return the places of each label that at least two have, by first places."""
    order = np.argsort(label, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(label[order]) != 0])
    parts = [np.asarray(part, np.int64) for part in np.split(order, starts[1:])]
    return sorted((part for part in parts if len(part) > 1), key=lambda part: int(part[0]))


def _condensed(
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    distances: NDArray[np.floating],
    count: int,
) -> NDArray[np.float64]:
    """Return distances in SciPy's condensed form; infinite where no pair is given."""
    i, j = np.minimum(left, right), np.maximum(left, right)
    matrix = np.full(count * (count - 1) // 2, np.inf)
    matrix[count * i - i * (i + 1) // 2 + j - i - 1] = distances
    return matrix


def keepers(groups: Sequence[NDArray[np.int64]], rank: NDArray[np.floating]) -> list[int]:
    """Return the image of each group that ranks highest; of equals the first."""
    return [int(group[np.argmax(rank[group])]) for group in groups]
