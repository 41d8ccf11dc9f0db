"""Agreement with people against numbers that were worked out by hand."""

import numpy as np
import pytest

from lpipstore.pipeline.judgements.classical import classical_distances
from lpipstore.pipeline.judgements.scores import (
    average_precision,
    choice_scores,
    majority_agreement,
    mean_score,
    precision_score,
    vote_ceiling,
)

D0 = np.array([0.1, 0.3, 0.2, 0.2, 0.5])
D1 = np.array([0.2, 0.1, 0.2, 0.2, 0.4])
JUDGE = np.array([0.25, 1.0, 0.75, 0.5, 0.5])


def test_choices_by_hand():
    # p0 nearer: 1 - judge; p1 nearer: judge; as near: half a point, whatever the votes
    assert choice_scores(D0, D1, JUDGE).tolist() == [0.75, 1.0, 0.5, 0.5, 0.5]


def test_majorities_by_hand():
    agrees = majority_agreement(D0, D1, JUDGE)
    assert agrees[:3].tolist() == [1.0, 1.0, 0.5]
    assert np.isnan(agrees[3:]).all()


def test_the_ceiling_by_hand():
    assert vote_ceiling(JUDGE) == pytest.approx((0.75 + 1 + 0.75 + 0.5 + 0.5) / 5)
    every_majority = choice_scores(JUDGE, 1 - JUDGE, JUDGE)
    assert vote_ceiling(JUDGE) == pytest.approx(every_majority.mean())


def test_average_precision_by_hand():
    # Found in order: same, different, same, different: precision 1 at recall 1/2, 2/3 at 1
    distances, same = np.array([0.1, 0.2, 0.3, 0.4]), np.array([1.0, 0, 1, 0])
    assert average_precision(distances, same) == pytest.approx((1 + 2 / 3) / 2)
    # Precision that rises again is raised before: 1/2 at recall 1/3, then 2/3, 3/4
    assert average_precision(
        np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 1, 1, 1])
    ) == pytest.approx(3 / 4)


def test_equal_distances_are_found_together():
    same = np.array([1.0, 0.0, 0.0, 1.0])
    for order in ([0, 1, 2, 3], [1, 0, 3, 2], [3, 2, 1, 0]):
        # two at 0.1 with one same: precision 1/2 at recall 1/2; all four: 1/2 at 1
        distances = np.array([0.1, 0.1, 0.2, 0.2])
        answers = np.array([same[:2], same[2:]])
        mixed = np.concatenate([answers[0], answers[1]])[order]
        assert average_precision(distances[order], mixed) == pytest.approx(0.5)


def test_shares_of_votes_count_as_shares():
    # found: 2/3 of a «same» and 1/3 of a false alarm, then 1/3 and 2/3
    value = average_precision(np.array([0.1, 0.2]), np.array([2 / 3, 1 / 3]))
    assert value == pytest.approx((2 / 3) * (2 / 3) + (1 / 3) * (1 / 2))


def test_distances_are_flattened_before_they_are_sorted():
    distances, same = np.random.default_rng(0).random(20), np.arange(20) % 2
    flat = average_precision(distances, same)
    assert average_precision(distances.reshape(20, 1, 1, 1), same) == flat
    assert average_precision(distances.reshape(4, 5), same) == flat


def test_infinite_distances_and_no_same_pair():
    assert average_precision(np.array([-np.inf, 1.0]), np.array([1.0, 0.0])) == 1
    assert np.isnan(average_precision(np.array([0.1, 0.2]), np.zeros(2)))


def test_means_of_sets_and_their_intervals():
    random = np.random.default_rng(1)
    scores = np.stack([(random.random(900) < 0.7) * 1.0, np.full(900, 0.5)])
    sets = np.repeat([0, 1], [100, 800])
    first, second, mean = mean_score(scores, sets)
    assert first[0].value == scores[0, :100].mean()
    assert (first[0].count, second[0].count, mean[0].count) == (100, 800, 900)
    assert mean[0].value == pytest.approx((first[0].value + second[0].value) / 2)
    # 1.96 standard errors to either side, within what 1,000 samples give
    error = np.sqrt(second[0].value * (1 - second[0].value) / 800)
    assert second[0].high - second[0].low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert second[0].low < second[0].value < second[0].high
    assert (second[1].low, second[1].high) == (0.5, 0.5)
    assert mean_score(scores, sets) == [first, second, mean]


def test_judgements_without_majority_are_left_out():
    scores = np.array([[1.0, np.nan, 0.0, 1.0]])
    (only, _) = mean_score(scores, np.zeros(4, int))
    assert (only[0].value, only[0].count) == (pytest.approx(2 / 3), 3)


def test_a_set_without_any_majority_keeps_its_place():
    scores = np.array([[1.0, 1.0, np.nan, np.nan, 0.0, 1.0], [0.0, 0.0, np.nan, np.nan, 1.0, 1.0]])
    first, none, last, mean = mean_score(scores, np.array([0, 0, 1, 1, 2, 2]))
    assert [score.value for score in first] == [1, 0]
    assert np.isnan([score.value for score in none]).all()
    assert [score.count for score in (first[0], none[0], last[0], mean[0])] == [2, 0, 2, 4]
    assert [score.value for score in last] == [0.5, 1]
    assert [score.value for score in mean] == [0.75, 0.5]
    only, mean = mean_score(scores[:, 2:4], np.zeros(2, int))
    assert np.isnan([only[0].value, mean[1].value, mean[1].low]).all()
    assert (only[0].count, mean[0].count) == (0, 0)


def test_precision_of_several_sets():
    random = np.random.default_rng(2)
    distances = random.random((2, 60))
    same = (distances[0] + random.random(60) < 0.8) * 1.0
    sets = np.repeat([0, 1], 30)
    first, second, mean = precision_score(distances, same, sets)
    assert first[0].value == average_precision(distances[0, :30], same[:30])
    assert second[1].value == average_precision(distances[1, 30:], same[30:])
    assert mean[0].value == pytest.approx((first[0].value + second[0].value) / 2)
    assert first[0].low <= first[0].value <= first[0].high


def test_metrics_that_look_at_pixels():
    import torch

    random = np.random.default_rng(3)
    first = torch.from_numpy(random.integers(0, 256, (2, 20, 24, 3), np.uint8))
    second = first.clone()
    second[1] = torch.from_numpy(random.integers(0, 256, (20, 24, 3), np.uint8))
    error = ((first[1].double() - second[1].double()) / 255).square().mean()
    assert classical_distances("L2", first, second).tolist() == pytest.approx([0, float(error)])
    psnr = classical_distances("PSNR", first, second)
    assert psnr[0] == -np.inf
    assert float(psnr[1]) == pytest.approx(float(10 * error.log10()), rel=1e-5)
    ssim = classical_distances("SSIM", first, second)
    assert float(ssim[0]) == pytest.approx(0, abs=1e-6)
    assert 0.5 < float(ssim[1]) < 1.5
