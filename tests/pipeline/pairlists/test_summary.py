"""What a list says as a whole, against the matrix and against the definition."""

import itertools

import numpy as np
import pytest

from lpipstore.pipeline.matrix.summary import pair_summary
from lpipstore.pipeline.pairlists.summary import list_summary, summarise_groups


def matrix_of(count, seed=0):
    random = np.random.default_rng(seed)
    points = random.normal(size=(count, 3))
    matrix = np.linalg.norm(points[:, None] - points[None], axis=2).astype(np.float32)
    return matrix, np.triu_indices(count, 1)


def dyadic_by_definition(values, left, right):
    e = values - values.mean()
    total = sum(
        e[a] * e[b]
        for a, b in itertools.product(range(len(e)), repeat=2)
        if {left[a], right[a]} & {left[b], right[b]}
    )
    return np.sqrt(total) / len(e)


def test_standard_error_is_that_of_the_definition():
    random = np.random.default_rng(0)
    for pairs, images in ((60, 40), (200, 50), (30, 100)):
        left, right = random.integers(0, images, (2, pairs))
        right[:3], left[:3] = left[3:6], right[3:6]  # repeated pairs
        values = random.random(pairs).astype(np.float32)
        values += (left + right).astype(np.float32) / images
        found = list_summary(values, left, right)
        assert found.stderr == pytest.approx(
            dyadic_by_definition(values.astype(float), left, right), rel=1e-9
        )


def test_pairs_without_common_images_have_the_plain_error():
    values = np.random.default_rng(0).random(50).astype(np.float32)
    found = list_summary(values, np.arange(50), np.arange(50, 100))
    assert found.stderr == pytest.approx(values.astype(float).std() / np.sqrt(50), rel=1e-6)
    assert found.mean == pytest.approx(values.mean(), rel=1e-6)
    assert found.quantiles["0.5"] == pytest.approx(np.median(values))
    assert (found.quantiles["0.0"], found.quantiles["1.0"]) == (values.min(), values.max())


def test_all_pairs_have_about_the_jackknife_of_the_matrix():
    matrix, (i, j) = matrix_of(150)
    whole = pair_summary(lambda a, b: matrix[a:b], 150, 64)
    found = list_summary(matrix[i, j], i, j)
    assert found.stderr == pytest.approx(whole.stderr, rel=0.03)
    assert found.std == pytest.approx(whole.std, rel=1e-5)


def test_pairs_that_do_not_tell_have_no_error():
    values = np.array([0.25, 0.75, 0.5], np.float32)
    assert list_summary(values, np.zeros(3, int), np.arange(1, 4)).stderr is None
    assert list_summary(values[:1], np.array([0]), np.array([1])).stderr is None
    assert list_summary(values[:1] * 0, np.array([0]), np.array([0])).stderr is None


def test_groups_have_the_figures_of_their_matrices():
    counts = (30, 2, 1, 7, 0)
    left, right, values, group_of, expected = [], [], [], [], []
    for group, count in enumerate(counts):
        matrix, (i, j) = matrix_of(count, group)
        left.append(i + len(group_of))
        right.append(j + len(group_of))
        values.append(matrix[i, j])
        group_of += [group] * count
        expected.append(pair_summary(lambda a, b, m=matrix: m[a:b], count, 8) if len(i) else None)
    found = summarise_groups(
        *map(np.concatenate, (values, left, right)), np.array(group_of), len(counts)
    )
    assert found.images.tolist() == list(counts)
    assert found.pairs.tolist() == [435, 1, 0, 21, 0]
    for group, whole in enumerate(expected):
        for name in ("mean", "std", "stderr"):
            number = getattr(found, name)[group]
            if whole is None or getattr(whole, name) is None:
                assert np.isnan(number)
            else:
                assert number == pytest.approx(getattr(whole, name), rel=1e-5, abs=1e-7)
    means = np.array([expected[g].mean for g in (0, 1, 3)])
    assert found.overall == pytest.approx(means.mean(), rel=1e-6)
    assert found.overall_stderr == pytest.approx(means.std(ddof=1) / np.sqrt(3), rel=1e-6)
