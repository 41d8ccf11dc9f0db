"""How many clusters there are: as many as were planted, by a silhouette as it is defined."""

import numpy as np
import pytest
from scipy.spatial.distance import squareform

from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.pipeline.analysis.hierarchy import cluster_tree, cut
from lpipstore.pipeline.analysis.silhouette import choose_count


def blobs(count, each=8, apart=10.0, seed=0):
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(size=(count, 4)) * apart, each, axis=0)
    points = centres + random.normal(size=centres.shape)
    return ((points[:, None] - points[None]) ** 2).sum(2).astype(np.float32)


def brute(matrix, labels):
    values = []
    for i, label in enumerate(labels):
        own = [j for j in range(len(labels)) if labels[j] == label and j != i]
        if not own:
            values.append(0.0)
            continue
        a = matrix[i, own].mean()
        b = min(matrix[i, labels == other].mean() for other in set(labels) - {label})
        values.append((b - a) / max(a, b))
    return float(np.mean(values))


@pytest.mark.parametrize("count", [2, 3, 6])
def test_planted_clusters_are_found(count):
    matrix = blobs(count)
    tree = cluster_tree(squareform(matrix, checks=False))
    choice = choose_count(matrix, tree)
    assert choice.count == count
    assert choice.silhouette == pytest.approx(brute(matrix, cut(tree, count=count)), abs=1e-5)
    assert choice.distinct
    assert choice.reason.startswith("of 2 to ")


def test_the_best_of_all_cuts_is_taken():
    matrix = blobs(3, each=3, apart=1.0)
    tree = cluster_tree(squareform(matrix, checks=False))
    scores = [brute(matrix, cut(tree, count=count)) for count in range(2, 9)]
    assert choose_count(matrix, tree).count == 2 + int(np.argmax(scores))
    assert choose_count(matrix, tree, most=4).count == 2 + int(np.argmax(scores[:3]))


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_what_has_no_clusters_stays_one(count):
    matrix = np.zeros((count, count), np.float32)
    tree = cluster_tree(squareform(matrix, checks=False))
    choice = choose_count(matrix, tree)
    assert (choice.count, choice.silhouette, choice.distinct) == (1, None, False)


def test_missing_distances_are_refused():
    matrix = blobs(2)
    tree = cluster_tree(squareform(matrix, checks=False))
    matrix[0, 3] = np.nan
    with pytest.raises(LpipstoreError, match="missing or not finite"):
        choose_count(matrix, tree)


def test_negative_distances_of_some_heads_have_no_silhouette():
    matrix = blobs(2)
    matrix[0, 3] = matrix[3, 0] = -1
    tree = cluster_tree(squareform(matrix, checks=False))
    with pytest.raises(UsageError, match="say with count or below"):
        choose_count(matrix, tree)
