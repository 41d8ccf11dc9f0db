"""Farthest-first order: that of brute force, and within twice the best radius."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.pipeline.analysis.cover import farthest_first


@st.composite
def metrics(draw):
    """Distances of points on a line, with many ties."""
    points = np.array(draw(st.lists(st.integers(0, 10), min_size=1, max_size=8)), np.float64)
    return np.abs(points[:, None] - points[None, :])


@given(metrics(), st.integers(1, 10), st.data())
def test_order_and_radii_are_those_of_brute_force(matrix, count, data):
    n = len(matrix)
    start = data.draw(st.none() | st.integers(0, n - 1))
    indices, radii = farthest_first(lambda i: matrix[i], count, n, start)
    picked = [int(np.argmin(matrix.sum(1))) if start is None else start]
    while len(picked) < min(count, n):
        left = [i for i in range(n) if i not in picked]
        picked.append(max(left, key=lambda i: (matrix[i, picked].min(), -i)))
    assert indices.tolist() == picked
    assert radii.tolist() == [matrix[:, picked[: k + 1]].min(1).max() for k in range(len(picked))]


@given(metrics(), st.integers(1, 4))
def test_the_radius_is_at_most_twice_the_best(matrix, count):
    n = len(matrix)
    _, radii = farthest_first(lambda i: matrix[i], count, n)
    sets = combinations(range(n), min(count, n))
    best = min(matrix[:, list(chosen)].min(1).max() for chosen in sets)
    assert radii[-1] <= 2 * best


def test_only_the_rows_of_picked_images_are_read():
    matrix, read = np.abs(np.subtract.outer(np.arange(50.0), np.arange(50.0))), []

    def row(i):
        read.append(i)
        return matrix[i]

    indices, _ = farthest_first(row, 5, 50, start=7)
    assert read == indices.tolist()
    assert indices.tolist()[:2] == [7, 49]


def test_identical_images_no_image_and_negative_distances():
    zeros = np.zeros((4, 4), np.float32)
    indices, radii = farthest_first(lambda i: zeros[i], 9, 4)
    assert (indices.tolist(), radii.tolist()) == ([0, 1, 2, 3], [0.0] * 4)
    indices, radii = farthest_first(lambda i: zeros[i], 3, 0)
    assert (len(indices), len(radii)) == (0, 0)
    odd = np.array([[0, -1, 2], [-1, 0, -3], [2, -3, 0]], np.float32)
    indices, radii = farthest_first(lambda i: odd[i], 3, 3, start=0)
    assert (indices.tolist(), radii.tolist()) == ([0, 2, 1], [2.0, 0.0, 0.0])


def test_missing_distances_and_wrong_questions_are_refused():
    broken = np.array([[0, np.nan], [np.nan, 0]])
    for start in (None, 1):
        with pytest.raises(LpipstoreError, match="missing or not finite"):
            farthest_first(lambda i: broken[i], 2, 2, start)
    with pytest.raises(UsageError, match="count=0 must be at least 1"):
        farthest_first(lambda i: broken[i], 0, 2)
    with pytest.raises(UsageError, match="image 2 is none of 2"):
        farthest_first(lambda i: broken[i], 1, 2, start=2)
