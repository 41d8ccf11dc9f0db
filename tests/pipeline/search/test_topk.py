"""Neighbours that are kept: the nearest, ties by number, in whatever order they come."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lpipstore.pipeline.search.topk import Neighbours

DISTANCES = st.floats(-2, 2, width=32) | st.sampled_from([0.0, -0.0, 0.5])


@given(st.integers(2, 12), st.integers(1, 14), st.randoms(), st.data())
def test_the_nearest_are_kept_in_any_order(count, most, random, data):
    listed = data.draw(st.lists(DISTANCES, min_size=count**2, max_size=count**2))
    matrix = np.array(listed, np.float32).reshape(count, count)
    matrix = np.triu(matrix, 1) + np.triu(matrix, 1).T
    found = Neighbours(count, most)
    numbers = list(range(count))
    random.shuffle(numbers)
    cut = data.draw(st.integers(1, count))
    parts = [np.array(part) for part in (numbers[:cut], numbers[cut:]) if part]
    for images in parts:
        for others in (*parts, parts[0]):  # some of them twice
            found.offer(images, others, matrix[np.ix_(images, others)])
    table = found.table()
    expected = [
        sorted((float(matrix[i, j]), j) for j in range(count) if j != i)[:most]
        for i in range(count)
    ]
    got = [
        [(float(d), int(j)) for d, j in zip(table["distance"][here], table["j"][here], strict=True)]
        for here in (table["i"] == i for i in range(count))
    ]
    assert got == expected
    full = most < count
    last = [near[-1][0] if full else np.inf for near in expected]
    assert np.array_equal(found.reach(), last)
