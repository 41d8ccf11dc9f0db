"""Mean, spread, quantiles and standard error of a matrix against numpy and by hand."""

import numpy as np
import pytest

from lpipstore.pipeline.matrix.summary import QUANTILES, cross_summary, pair_summary


def matrix_of(count, seed=0):
    random = np.random.default_rng(seed).gamma(3.0, 0.1, (count, count)).astype(np.float32)
    upper = np.triu(random, 1)
    return upper + upper.T


def summary_of(matrix, height=7):
    return pair_summary(lambda start, stop: matrix[start:stop], len(matrix), height)


@pytest.mark.parametrize("count", [3, 20, 61])
def test_mean_and_std_are_those_of_the_pairs(count):
    matrix = matrix_of(count)
    pairs = matrix[np.triu_indices(count, 1)].astype(np.float64)
    summary = summary_of(matrix)
    assert summary.mean == pytest.approx(pairs.mean(), rel=1e-12)
    assert summary.std == pytest.approx(pairs.std(), rel=1e-6)


def test_quantiles_are_those_of_the_pairs():
    matrix = matrix_of(61)
    pairs = np.sort(matrix[np.triu_indices(61, 1)])
    summary = summary_of(matrix).quantiles
    for q in QUANTILES:
        rank = q * (len(pairs) - 1)
        low, high = pairs[int(np.floor(rank))], pairs[int(np.ceil(rank))]
        step = (pairs[-1] - pairs[0]) / 65536
        assert low - step <= summary[str(q)] <= high + step
    assert summary["0.0"] == pairs[0]
    assert summary["1.0"] == pairs[-1]


def test_standard_error_leaves_one_image_out_at_a_time():
    matrix = matrix_of(12)
    means = []
    for left_out in range(12):
        rest = np.delete(np.delete(matrix, left_out, 0), left_out, 1).astype(np.float64)
        means.append(rest[np.triu_indices(11, 1)].mean())
    expected = np.sqrt(11 / 12 * np.square(np.array(means) - np.mean(means)).sum())
    assert summary_of(matrix).stderr == pytest.approx(expected, rel=1e-9)


def test_two_images_have_a_mean_but_no_standard_error():
    summary = summary_of(np.array([[0, 0.25], [0.25, 0]], np.float32))
    assert summary.mean == 0.25
    assert summary.stderr is None
    assert set(summary.quantiles.values()) == {0.25}


def test_the_height_of_the_bands_changes_nothing():
    matrix = matrix_of(30)
    whole, bands = summary_of(matrix, 30), summary_of(matrix, 4)
    assert bands.quantiles == whole.quantiles
    assert bands.mean == pytest.approx(whole.mean, rel=1e-12)


def test_a_cross_summary_is_that_of_its_numbers():
    random = np.random.default_rng(3)
    matrix = random.random((50, 30), np.float32)
    found = cross_summary(lambda start, stop: matrix[start:stop], matrix.shape, 16)
    exact = matrix.astype(np.float64)
    assert found.mean == pytest.approx(exact.mean())
    assert found.std == pytest.approx(exact.std())
    assert found.quantiles["0.5"] == pytest.approx(np.median(exact), abs=1e-3)
    assert found.quantiles["1.0"] == matrix.max()
    left_out = [np.delete(exact, n, 0).mean() for n in range(50)]
    across = [np.delete(exact, n, 1).mean() for n in range(30)]
    variance = 49 * np.var(left_out) + 29 * np.var(across)
    assert found.stderr == pytest.approx(np.sqrt(variance))


def test_the_error_of_a_cross_mean_covers_the_truth():
    random = np.random.default_rng(4)
    misses = 0
    for _ in range(200):
        down, across = random.normal(size=20), random.normal(size=30)
        matrix = (down[:, None] + across[None, :] + 5).astype(np.float32)
        found = cross_summary(lambda start, stop, m=matrix: m[start:stop], matrix.shape, 7)
        misses += abs(found.mean - 5) > 2 * found.stderr
    assert 2 <= misses <= 22  # 5 % are expected


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [2, 3, 4, 5, 12, 61])
def test_quantiles_are_numpys_within_the_bound(count, seed):
    matrix = matrix_of(count, seed)
    whole = matrix_of(count, seed + 100)[:, : max(1, count - 1)]
    pairs = matrix[np.triu_indices(count, 1)].astype(np.float64)
    cross = cross_summary(lambda start, stop: whole[start:stop], whole.shape, 5)
    for summary, numbers in ((summary_of(matrix), pairs), (cross, whole.astype(np.float64))):
        expected = np.quantile(numbers, QUANTILES)
        found = np.array([summary.quantiles[str(q)] for q in QUANTILES])
        assert np.abs(found - expected).max() <= np.ptp(numbers) / 65536
        assert (np.diff(found) >= 0).all()
