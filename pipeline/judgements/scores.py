"""Scores of how well distances agree with people: 2AFC score and JND average precision.

The scores are those of Zhang et al., CVPR 2018, sections 2 and 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
RESAMPLES = 1000
_CONFIDENCE = 0.95
_AT_ONCE = 1 << 22  # numbers that one step of the bootstrap may take


@dataclass(frozen=True)
class Score:
    """A score, the ends of its bootstrap interval (95 %), and the number of judgements."""

    value: float
    low: float
    high: float
    count: int


def choice_scores(d0: Numbers, d1: Numbers, judge: Numbers) -> Numbers:
    """Return the 2AFC score of each judgement: the share of votes that the distances agree with.

    Parameters
    ----------
    d0, d1
        [..., n]: distances of p0 and of p1 to the reference.
    judge
        [n]: share of votes for p1.

    Returns
    -------
    ndarray of shape [..., n]
        ``1 - judge`` where p0 is nearer, ``judge`` where p1 is, 0.5 where both are equally near.
    """
    return np.where(d0 < d1, 1 - judge, np.where(d1 < d0, judge, 0.5))


def majority_agreement(d0: Numbers, d1: Numbers, judge: Numbers) -> Numbers:
    """Return for each judgement whether the distances agree with the majority of the votes.

    1 or 0; 0.5 where both distances are equal; NaN where the votes are tied.
    """
    agrees = choice_scores(d0, d1, (judge > 0.5).astype(np.float64))
    return np.where(judge == 0.5, np.nan, agrees)


def vote_ceiling(judge: Numbers) -> float:
    """Return the best possible 2AFC score: that of agreeing with every majority."""
    return float(np.maximum(judge, 1 - judge).mean())


def average_precision(distances: Numbers, same: Numbers) -> float:
    """Return the average precision with which small distances find pairs judged «the same».

    Parameters
    ----------
    distances
        [n] or any shape with n numbers, such as [n, 1, 1, 1]; flattened before sorting.
    same
        n numbers, the share of votes for «the same»: a pair counts as a true positive by that
        share, and as a false positive by the rest.

    Returns
    -------
    float
        Area under the precision-recall curve, with precision made non-increasing in recall, as in
        VOC 2010 and, after it, BAPPS; NaN if there is no vote for «the same». Equal distances are
        ranked together: their order in the input makes no difference.
    """
    from sklearn.metrics import precision_recall_curve

    flat, share = np.ravel(distances), np.ravel(same)
    if flat.shape != share.shape:
        raise ValueError(f"{len(flat)} distances and {len(share)} answers")
    if not share.sum() > 0:
        return float("nan")
    # Ranks instead of distances: PSNR is infinite for equal images
    nearness = -np.unique(flat, return_inverse=True)[1].reshape(-1)
    precision, recall, _ = precision_recall_curve(
        np.repeat([1, 0], len(flat)),
        np.concatenate([nearness, nearness]),
        sample_weight=np.concatenate([share, 1 - share]),
    )
    falling = np.maximum.accumulate(precision[:-1])  # recall falls along the curve
    return float(-(np.diff(recall) * falling).sum())


def mean_score(scores: Numbers, sets: NDArray[np.int64], seed: int = 0) -> list[list[Score]]:
    """Return the mean of each set and the mean over the sets, with bootstrap intervals.

    Parameters
    ----------
    scores
        [metrics, n]: a score for each judgement; NaN (for all metrics alike) leaves one out.
    sets
        [n]: the set of each judgement.
    seed
        Seed of the resampling; all metrics see the same samples.

    Returns
    -------
    list of list of Score
        ``result[k]`` holds the scores of set k, in ascending order of sets (NaN where no judgement
        of the set is usable); the last entry holds those of the mean over the sets that have a
        score. Each entry has one score per metric. Judgements are resampled within each set as if
        they were independent, so intervals are too narrow where many judgements share images.
    """
    from scipy.stats import bootstrap

    usable = ~np.isnan(scores[0])
    random = np.random.default_rng(seed)
    means, spreads, counts = [], [], []
    for number in np.unique(sets).tolist():
        own = scores[:, usable & (sets == number)]
        counts.append(own.shape[1])
        means.append(own.mean(axis=1) if own.size else np.full(len(own), np.nan))
        if own.shape[1] < 2:  # one judgement says nothing about the spread
            spreads.append(np.full((len(own), RESAMPLES), np.nan))
            continue
        drawn = bootstrap(
            (own,),
            np.mean,
            axis=-1,
            n_resamples=RESAMPLES,
            batch=max(1, _AT_ONCE // own.size),
            method="percentile",
            rng=random,
        )
        spreads.append(drawn.bootstrap_distribution)
    return _with_overall(means, spreads, counts)


def precision_score(
    distances: Numbers, same: Numbers, sets: NDArray[np.int64], seed: int = 0
) -> list[list[Score]]:
    """Return the average precision of each set and the mean over the sets, as `mean_score` does."""
    random = np.random.default_rng(seed)
    means, spreads, counts = [], [], []
    for number in np.unique(sets).tolist():
        own, answers = distances[:, sets == number], same[sets == number]
        means.append(np.array([average_precision(row, answers) for row in own]))
        spread = np.empty((len(own), RESAMPLES))
        for sample in range(RESAMPLES):
            drawn = random.integers(0, len(answers), len(answers))
            for metric, row in enumerate(own):
                spread[metric, sample] = average_precision(row[drawn], answers[drawn])
        spreads.append(spread)
        counts.append(len(answers))
    return _with_overall(means, spreads, counts)


def _with_overall(
    means: Sequence[Numbers], spreads: Sequence[Numbers], counts: Sequence[int]
) -> list[list[Score]]:
    """Return the scores of each set and of the mean over those sets that have one."""
    results = [_scores(m, s, n) for m, s, n in zip(means, spreads, counts, strict=True)]
    known = [number for number, mean in enumerate(means) if not np.isnan(mean).all()]
    if not known:
        return [*results, _scores(means[0], spreads[0], 0)]
    mean, spread = (np.mean([part[n] for n in known], axis=0) for part in (means, spreads))
    return [*results, _scores(mean, spread, sum(counts[n] for n in known))]


def _scores(means: Numbers, spreads: Numbers, count: int) -> list[Score]:
    tail = (1 - _CONFIDENCE) / 2
    ends = [
        # A sample without any vote for «the same» has no score
        np.quantile(row[~np.isnan(row)], [tail, 1 - tail])
        if (~np.isnan(row)).any()
        else [np.nan] * 2
        for row in spreads
    ]
    return [
        Score(float(mean), float(low), float(high), count)
        for mean, (low, high) in zip(means, ends, strict=True)
    ]
