"""How many clusters a collection has: the cut of its tree with the largest mean silhouette."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import silhouette_score

from ...cache.errors import UsageError, setting
from ..common.progress import Report, silent
from .hierarchy import cut, need_finite

MOST_CLUSTERS = 20
DISTINCT = 0.25
"""Mean silhouette below which clusters are not distinct (Kaufman and Rousseeuw 1990, p. 88)."""


@dataclass(frozen=True)
class Choice:
    """A number of clusters, and why it is that one.

    Attributes
    ----------
    count
        Clusters.
    silhouette
        The mean silhouette of that cut, from -1 to 1; None for one cluster, which has none.
    reason
        In words.
    distinct
        Whether the clusters stand apart.
    """

    count: int
    silhouette: float | None
    reason: str
    distinct: bool


def choose_count(
    matrix: NDArray[np.floating],
    tree: NDArray[np.float64],
    most: int = MOST_CLUSTERS,
    report: Report = silent,
) -> Choice:
    """Choose the cut of a tree into 2 to `most` clusters with the largest mean silhouette.

    The silhouette of an image (Rousseeuw 1987) compares its mean distance to its own cluster with
    that to the nearest other one. Takes no memory that counts besides the matrix; each of the cuts
    takes about 0.5 s for 5,000 images.

    Parameters
    ----------
    matrix
        Distances [n, n], 0 on the diagonal.
    tree
        The result of `cluster_tree` for these distances.

    Returns
    -------
    Choice
        Of equally good cuts that with the fewest clusters. One cluster if there are fewer than
        three images, or if every cut puts images closer to another cluster than to their own.

    Raises
    ------
    UsageError
        Distances are below 0.
    LpipstoreError
        Distances are missing or not finite.
    """
    images = len(tree) + 1
    if images < 3:
        return Choice(1, None, "fewer than three images have nothing to choose", distinct=False)
    need_finite(matrix)
    if matrix.min() < 0:
        raise UsageError(
            "some distances are below 0, as of a head with negative weights, and silhouettes "
            f"compare lengths: say with {setting('count')} or {setting('below')} how many clusters "
            "there are"
        )
    counts = range(2, min(most, images - 1) + 1)
    scores = []
    for count in counts:
        labels = cut(tree, count=count)
        scores.append(float(silhouette_score(matrix, labels, metric="precomputed")))
        report("cuts", len(scores), len(counts))
    best = int(np.argmax(scores))
    span = f"2 to {counts[-1]}" if len(counts) > 1 else "2"
    if scores[best] <= 0:
        return Choice(1, None, f"no cut into {span} clusters sets them apart", distinct=False)
    reason = f"of {span} clusters these have the largest mean silhouette, {scores[best]:.2f}"
    return Choice(counts[best], scores[best], reason, scores[best] >= DISTINCT)
