"""Summary statistics of the distances of listed pairs, overall and per group."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..matrix.summary import Figures


def list_summary(
    distances: NDArray[np.float32], left: NDArray[np.int64], right: NDArray[np.int64]
) -> Figures:
    """Summarise the distances of any pairs.

    Parameters
    ----------
    distances
        float32 [pairs], at least one; no NaN.
    left, right
        int64 [pairs]: image numbers of each pair; equal images share one number.

    Returns
    -------
    Figures
        `stderr` allows for pairs sharing an image (dyadic cluster-robust: Aronow, Samii & Assenova
        2015, equation 2, without covariates; std/√pairs where no image is in two pairs; None where
        the pairs do not determine it, as when all share one image).
    """
    values = distances.astype(np.float64)
    return Figures.of(values, _dyadic_error(values - values.mean(), left, right))


def _dyadic_error(
    residuals: NDArray[np.float64], left: NDArray[np.int64], right: NDArray[np.int64]
) -> float | None:
    """Return the standard error of the mean for pairs that share images; None if undetermined.

    The variance sums the products of residuals of all pairs that have an image in common.
    """
    count = int(max(left.max(), right.max())) + 1
    sums = np.bincount(left, residuals, count)
    other = left != right
    sums += np.bincount(right[other], residuals[other], count)
    codes = np.minimum(left, right) * count + np.maximum(left, right)
    _, pair = np.unique(codes[other], return_inverse=True)
    twice = np.bincount(pair, residuals[other])  # pairs of the same two images are in both sums
    variance = np.square(sums).sum() - np.square(twice).sum()
    noise = 1e-12 * np.square(residuals).sum()
    return float(np.sqrt(variance)) / len(residuals) if variance > noise else None


@dataclass(frozen=True)
class GroupSummary:
    """Statistics per group, one entry per group in each array; NaN for too few images.

    `stderr` is the jackknife over the group's images, as for the matrix of one collection.
    `overall` is the mean of the groups' means and `overall_stderr` its standard error (None for
    fewer than two groups that have a mean).
    """

    images: NDArray[np.int64]
    pairs: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    stderr: NDArray[np.float64]

    @property
    def overall(self) -> float | None:
        """The mean of the groups' means."""
        known = self.mean[~np.isnan(self.mean)]
        return float(known.mean()) if len(known) else None

    @property
    def overall_stderr(self) -> float | None:
        """The standard error of `overall`, with groups as independent samples."""
        known = self.mean[~np.isnan(self.mean)]
        return float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else None


def summarise_groups(
    distances: NDArray[np.float32],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    group_of: NDArray[np.int64],
    groups: int,
) -> GroupSummary:
    """Summarise all pairs within each group.

    Parameters
    ----------
    distances
        float32 [pairs].
    left, right
        int64 [pairs]: image numbers of each pair.
    group_of
        int64 [images]: the group of each image.
    groups
        Number of groups.
    """
    values = distances.astype(np.float64)
    images = np.bincount(group_of, minlength=groups)
    group = group_of[left]
    pairs = np.bincount(group, minlength=groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.bincount(group, values, groups) / pairs
        residuals = values - mean[group]
        std = np.sqrt(np.bincount(group, np.square(residuals), groups) / pairs)
        sums = np.bincount(left, residuals, len(group_of))
        sums += np.bincount(right, residuals, len(group_of))
        squares = np.bincount(group_of, np.square(sums), groups)
        # The leave-one-image-out jackknife (Efron & Stein 1981), in terms of these sums
        variance = 4 * squares / (images * (images - 1.0) * np.square(images - 2.0))
    stderr = np.where(images < 3, np.nan, np.sqrt(variance))
    return GroupSummary(images, pairs, mean, std, stderr)
