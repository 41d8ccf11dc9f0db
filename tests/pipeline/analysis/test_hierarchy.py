"""Trees, orders, cuts and medoids: those of brute force, and of SciPy's own functions."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.cluster.hierarchy import cut_tree, leaves_list
from scipy.spatial.distance import squareform

from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.pipeline.analysis import hierarchy
from lpipstore.pipeline.analysis.hierarchy import (
    METHODS,
    by_size,
    cluster_tree,
    cut,
    leaf_order,
    medoids,
)
from lpipstore.pipeline.analysis.leaves import place, turned_order


@st.composite
def condensed(draw, most=7, lowest=0.0):
    """Distances of 2 to `most` images with many ties, in condensed form."""
    count = draw(st.integers(2, most))
    steps = st.integers(0, 12).map(lambda step: lowest + step / 8)
    return draw(arrays(np.float32, count * (count - 1) // 2, elements=steps))


def length(distances, order):
    """The sum of the distances of neighbours."""
    matrix = squareform(distances.astype(np.float64))
    return sum(matrix[i, j] for i, j in pairwise(order))


def orders(tree):
    """Every order of the leaves that a tree allows."""
    branches = [[[leaf]] for leaf in range(len(tree) + 1)]
    for left, right in tree[:, :2].astype(int):
        both = product(branches[left], branches[right])
        branches.append([way for one, two in both for way in (one + two, two + one)])
    return branches[-1]


def brute_merge(distances, method):
    """Heights of the merges, by the definition of the linkage."""
    matrix = squareform(distances.astype(np.float64))
    apart = {"average": np.mean, "complete": np.max, "single": np.min}[method]
    clusters, heights = [[n] for n in range(len(matrix))], []
    while len(clusters) > 1:
        pairs = [(i, j) for j in range(len(clusters)) for i in range(j)]
        gaps = [apart(matrix[np.ix_(clusters[i], clusters[j])]) for i, j in pairs]
        i, j = pairs[int(np.argmin(gaps))]
        heights.append(min(gaps))
        clusters[i] += clusters.pop(j)
    return heights


@given(st.integers(2, 7).flatmap(lambda n: st.permutations(range(n * (n - 1) // 2))))
def test_heights_of_each_linkage_are_those_of_its_definition(order):
    distances = np.array(order, np.float32) + 1  # without ties, or the tree is not the only one
    for method in ("complete", "single"):
        heights = cluster_tree(distances, method)[:, 2]
        np.testing.assert_allclose(heights, brute_merge(distances, method))
    spread = np.exp2(distances.astype(np.float64) / 2)  # means have no ties either
    heights = cluster_tree(spread, "average")[:, 2]
    np.testing.assert_allclose(heights, brute_merge(spread, "average"))


@given(condensed(most=6), st.sampled_from(METHODS))
def test_the_order_of_leaves_is_the_shortest_that_the_tree_allows(distances, method):
    tree = cluster_tree(distances, method)
    order = leaf_order(distances, tree)
    shortest = min(length(distances, way) for way in orders(tree))
    assert length(distances, order) == pytest.approx(shortest, abs=1e-6)
    assert sorted(order) == list(range(len(tree) + 1))


@given(condensed(most=7), st.sampled_from(METHODS))
def test_of_many_images_the_order_is_one_of_the_tree_and_ends_meet(distances, method):
    tree = cluster_tree(distances, method)
    order = turned_order(distances, tree).tolist()
    assert order in orders(tree)
    left, count = int(tree[-1, 0]), len(tree) + 1
    sides = [{left} if left < count else set(members(tree, left)), set()]
    sides[1] = set(range(count)) - sides[0]
    seam = next(k for k in range(1, count) if (order[k - 1] in sides[0]) != (order[k] in sides[0]))
    matrix = squareform(distances)
    ends = {order[0], order[seam - 1]}, {order[seam], order[-1]}
    assert matrix[order[seam - 1], order[seam]] == min(matrix[i, j] for i, j in product(*ends))


def members(tree, node):
    count = len(tree) + 1
    if node < count:
        return [node]
    return [leaf for child in tree[node - count, :2].astype(int) for leaf in members(tree, child)]


def test_many_images_are_ordered_better_than_by_the_tree_alone(monkeypatch):
    points = np.random.default_rng(0).normal(size=(300, 3))
    matrix = ((points[:, None] - points[None]) ** 2).sum(2)
    distances = squareform(matrix, checks=False)
    tree = cluster_tree(distances)
    best = length(distances, leaf_order(distances, tree))
    monkeypatch.setattr(hierarchy, "OPTIMAL_UP_TO", 299)
    turned = leaf_order(distances, tree)
    assert sorted(turned) == list(range(300))
    assert best < length(distances, turned) < length(distances, leaves_list(tree))


@given(condensed(most=6, lowest=-0.5), st.sampled_from(METHODS))
def test_negative_distances_of_some_heads_are_ordered_as_well(distances, method):
    tree = cluster_tree(distances, method)
    shortest = min(length(distances, way) for way in orders(tree))
    assert length(distances, leaf_order(distances, tree)) == pytest.approx(shortest, abs=1e-6)


@given(condensed(), st.sampled_from(METHODS))
def test_a_cut_has_as_many_clusters_as_asked_and_nests(distances, method):
    tree = cluster_tree(distances, method)
    images, finer = len(tree) + 1, None
    for count in range(images + 2, 0, -1):
        labels = cut(tree, count=count)
        assert labels.max() + 1 == min(count, images)
        if finer is not None:
            assert len({(int(a), int(b)) for a, b in zip(finer, labels, strict=True)}) == (
                finer.max() + 1
            )
        finer = labels
        sizes = np.bincount(labels)
        firsts = [int(np.flatnonzero(labels == label)[0]) for label in range(len(sizes))]
        keys = list(zip(-sizes, firsts, strict=True))
        assert keys == sorted(keys)


@given(st.integers(2, 7).flatmap(lambda n: st.permutations(range(n * (n - 1) // 2))))
def test_cuts_are_those_of_scipy(order):
    tree = cluster_tree(np.array(order), "complete")  # without ties there is only one cut
    for count in range(1, len(tree) + 2):
        expected = by_size(cut_tree(tree, count).ravel())
        np.testing.assert_array_equal(cut(tree, count=count), expected)


@given(condensed(), st.integers(-1, 14))
def test_a_cut_below_a_height_parts_what_complete_linkage_joined_there(distances, step):
    tree, below = cluster_tree(distances, "complete"), step / 8
    labels, matrix = cut(tree, below=below), squareform(distances)
    for label in range(labels.max() + 1):
        of = np.flatnonzero(labels == label)
        assert len(of) == 1 or matrix[np.ix_(of, of)].max() < below
    single = cut(cluster_tree(distances, "single"), below=below)
    for i, j in product(range(len(matrix)), repeat=2):
        if i != j and matrix[i, j] < below:
            assert single[i] == single[j]


@given(condensed(), st.data())
def test_medoids_are_those_of_brute_force(distances, data):
    matrix = squareform(distances)
    count = len(matrix)
    labels = by_size(
        np.array(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    )
    expected = []
    for label in range(labels.max() + 1):
        of = np.flatnonzero(labels == label)
        expected.append(of[np.argmin(matrix[np.ix_(of, of)].astype(np.float64).sum(1))])
    assert medoids(distances, labels).tolist() == expected
    assert medoids(matrix, labels).tolist() == expected


@pytest.mark.parametrize("count", [0, 1, 2, 3, 40])
def test_few_images_and_images_that_are_all_the_same_work(count):
    same = np.zeros(count * (count - 1) // 2, np.float32)
    for method in METHODS:
        tree = cluster_tree(same, method)
        assert tree.shape == (max(0, count - 1), 4)
        assert sorted(leaf_order(same, tree)) == list(range(max(1, count)))
    if count:
        labels = cut(tree, count=2)
        assert np.bincount(labels).tolist() == ([1] if count == 1 else [count - 1, 1])
        assert len(medoids(same, labels)) == min(2, count)
    assert medoids(same, np.empty(0, np.int64)).tolist() == []


def test_places_are_those_of_the_condensed_form():
    matrix = np.add.outer(np.arange(6) * 10, np.arange(6))
    upper = np.triu(matrix, 1)
    distances = squareform(upper + upper.T)
    assert all(distances[place(i, j, 6)] == matrix[i, j] for j in range(6) for i in range(j))


def test_missing_distances_and_wrong_questions_are_refused():
    broken = np.array([0.1, np.nan, 0.2], np.float32)
    for ask in (
        lambda: cluster_tree(broken),
        lambda: leaf_order(broken, cluster_tree(np.ones(3))),
        lambda: medoids(broken, np.zeros(3, np.int64)),
        lambda: cluster_tree(np.array([np.inf])),
    ):
        with pytest.raises(LpipstoreError, match="missing or not finite"):
            ask()
    tree = cluster_tree(np.ones(3))
    for choice in ({}, {"count": 2, "below": 0.5}, {"count": 0}):
        with pytest.raises(UsageError):
            cut(tree, **choice)
    with pytest.raises(UsageError, match="unknown linkage 'ward'"):
        cluster_tree(np.ones(3), "ward")
