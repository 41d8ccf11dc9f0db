"""Groups out of close pairs: those of brute force."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lpipstore.pipeline.analysis.groups import group_pairs, keepers


def brute_components(matrix: np.ndarray, below: float) -> list[list[int]]:
    count, seen, groups = len(matrix), set(), []
    for start in range(count):
        if start in seen:
            continue
        group, todo = {start}, [start]
        while todo:
            for other in np.flatnonzero(matrix[todo.pop()] < below).tolist():
                if other not in group:
                    group.add(other)
                    todo.append(other)
        seen |= group
        if len(group) > 1:
            groups.append(sorted(group))
    return groups


def pairs_below(matrix: np.ndarray, below: float):
    i, j = np.triu_indices(len(matrix), 1)
    close = matrix[i, j] < below
    return i[close], j[close], matrix[i, j][close]


@st.composite
def matrices(draw):
    count = draw(st.integers(2, 12))
    points = np.array(draw(st.lists(st.floats(0, 1), min_size=count, max_size=count)))
    return np.abs(points[:, None] - points[None, :])


@given(matrices(), st.floats(0.01, 0.5))
@settings(deadline=None)
def test_chains_of_close_pairs_are_groups(matrix, below):
    found = group_pairs(*pairs_below(matrix, below), len(matrix))
    assert [group.tolist() for group in found] == brute_components(matrix, below)


@given(matrices(), st.floats(0.01, 0.5))
@settings(deadline=None)
def test_complete_groups_are_close_throughout(matrix, below):
    found = group_pairs(*pairs_below(matrix, below), len(matrix), "complete")
    seen = [n for group in found for n in group.tolist()]
    assert len(seen) == len(set(seen))
    for group in found:
        assert len(group) > 1
        assert matrix[np.ix_(group, group)].max() < below
    singles = brute_components(matrix, below)
    for group in found:
        assert any(set(group.tolist()) <= set(single) for single in singles)
    if singles:  # something close is never left out altogether
        assert found


def test_no_pair_is_no_group():
    none = np.empty(0, np.int64)
    for kind in ("single", "complete"):
        assert group_pairs(none, none, none.astype(float), 5, kind) == []


def test_of_equals_the_first_is_kept():
    groups = [np.array([1, 3]), np.array([2, 4, 5])]
    assert keepers(groups, np.array([0.0, 1, 2, 1, 2, 3])) == [1, 5]
