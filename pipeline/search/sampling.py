"""Estimate from a sample of images whether a search by bounds will pay off."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..features.rowcache import RowCache
from .bounds import BoundStage
from .cascade import COMPARING, FEW, PRODUCT_PAYS, PRODUCTS, Tally

_CELLS = 16  # parts of a sample, in the order of the collection


@dataclass(frozen=True)
class Sample:
    """Images that stand for a collection, by their sorted numbers.

    Attributes
    ----------
    images
        Of the whole collection, or of its first side.
    others
        Of the second side; None if there is one side.
    """

    images: NDArray[np.int64]
    others: NDArray[np.int64] | None = None


def few_remain(
    stage: BoundStage,
    rows: RowCache,
    sample: Sample,
    limits: NDArray[np.float64],
    tally: Tally,
) -> bool:
    """Return whether a stage rules out all but one in `FEW` of the pairs of a sample.

    Parameters
    ----------
    limits
        float64 [images]: the largest true distance that matters to each of the sample's `images`.
    """
    stay = _stay(stage, rows, sample, limits, tally)
    if sample.others is None:
        stay = stay[np.triu_indices(len(stay), 1)]
    return bool(stay.mean() * FEW <= 1)


def estimated_cost(
    stage: BoundStage,
    rows: RowCache,
    sample: Sample,
    limits: NDArray[np.float64],
    tally: Tally,
) -> float:
    """Estimate from a sample the cost of comparing the pairs that a stage leaves.

    Returns
    -------
    float
        Relative to the cost of comparing all pairs in one matrix. Images that are adjacent in the
        collection are grouped: where the pairs that are left lie close to one another, as in a
        film, few products are needed.
    """
    stay = _stay(stage, rows, sample, limits, tally)
    starts, sizes = zip(*map(_groups, stay.shape), strict=True)
    pairs = np.outer(*sizes)
    if sample.others is None:
        np.fill_diagonal(stay, False)
        pairs -= np.diag(sizes[0])
    cells = np.add.reduceat(np.add.reduceat(stay.astype(int), starts[0], 0), starts[1], 1)
    shares = cells / np.maximum(pairs, 1)
    costs = np.where(shares * PRODUCT_PAYS > 1, PRODUCTS, COMPARING * shares)
    return float((costs * pairs).sum() / pairs.sum())


def _groups(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the starts and the sizes of groups of adjacent images."""
    starts = np.linspace(0, count, min(_CELLS, count) + 1).astype(np.int64)[:-1]
    return starts, np.diff(starts, append=count)


def _stay(
    stage: BoundStage,
    rows: RowCache,
    sample: Sample,
    limits: NDArray[np.float64],
    tally: Tally,
) -> NDArray[np.bool_]:
    """Return for all pairs of a sample whether a stage leaves them."""
    reach = stage.limit(limits)
    points = others = _points(rows, sample.images)
    most = np.maximum(reach[:, None], reach)
    if sample.others is not None:
        others, most = _points(rows, sample.others), reach[:, None]
    bounds = stage.bounds(points, others).cpu().numpy()
    tally.arithmetic += bounds.size * stage.width
    return np.asarray(bounds <= most)


def _points(rows: RowCache, images: NDArray[np.int64]) -> torch.Tensor:
    """Return the bound vectors of a few images."""
    return rows.pick(np.stack([images, images], 1), few=True)[0]
