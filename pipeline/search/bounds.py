"""Lower bounds of distances from pooled rows, with margins for all rounding errors.

Three errors separate a computed bound from the distance in the dense matrix:

* *of the product*: a float32 sum of n products in any order errs by at most γ_n times the sum of
  their absolute values, γ_n = n u / (1 - n u) with u = 2⁻²⁴ (Higham, *Accuracy and Stability of
  Numerical Algorithms*, 2002, section 3.1). For ``‖x‖² + ‖y‖² - 2 x·y`` this gives
  2 γ_n (‖x‖² + ‖y‖²);
* *of the stored means*: each is off by at most e, so the root of a bound is off by at most
  2 e √(Σ v);
* *of the dense matrix*: its products err as well. γ_n with n = 4,096 would be far too pessimistic
  there; independent rounding errors stay under 8 √n u times the norms, except in one case in 10⁹
  (Higham and Mary, *A new approach to probabilistic rounding error analysis*, 2019, theorem 3.1
  with λ = 8). Measured errors are ten times smaller than that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..backbones.layout import RowLayout
from ..common.by_value import ByValue
from ..common.memory import fresh
from ..common.precision import exact_arithmetic
from ..distances import kernels
from ..distances.direct import PAIRS_AT_ONCE, direct_distances
from ..distances.distances import DIRECT_BELOW
from ..distances.panels import Columns, widest
from ..distances.scoring import Scoring

UNIT = 2.0**-24
"""The relative error of one float32 rounding."""


_AROUND = 8  # roundings of the operands and sums around a product, in total


_LIKELY = 8  # λ of Higham and Mary


_PANEL = 4096  # columns of one float32 sum: the longer, the wider the margin


def sure_error(terms: int) -> float:
    """Return Higham's γ: the largest relative error of a float32 sum of `terms` products."""
    return terms * UNIT / (1 - terms * UNIT)


def likely_error(terms: int) -> float:
    """Return the relative error that a float32 sum of `terms` products stays under in practice."""
    return _LIKELY * math.sqrt(terms) * UNIT


_DIRECT = sure_error(2 * _AROUND)  # relative error of a distance from differences, rounded


@dataclass(frozen=True)
class BoundStage(ByValue):
    """One stage of the cascade under one head: its bound vectors' squared distances are bounds.

    A bound vector is a float32 row [width + 1] whose last number is its squared norm.

    Attributes
    ----------
    name
        Name of the stage in summaries.
    width
        Numbers in a bound vector, without the norm.
    slack
        Largest error of the root of a bound due to the rounding of bound vectors.
    """

    name: str
    width: int
    slack: float

    def limit(self, distance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the largest bound that a pair with true distance `distance` can have.

        Minus infinity stays what it is: no pair has such a bound.
        """
        roots = np.sqrt(np.maximum(distance, 0)) + self.slack
        limits = np.asarray(roots**2 * (1 + _AROUND * UNIT))
        limits[np.isneginf(distance)] = -np.inf
        return limits

    @exact_arithmetic()
    def bounds(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return the bounds of all pairs of two sets of bound vectors, float32 [n, m]."""
        sums = left.new_zeros(len(left), len(right))
        for panel in self._panels():
            sums.addmm_(left[:, panel], right[:, panel].T)
        lowered = 1 - self._margin()
        norms, others = (points[:, -1] * lowered for points in (left, right))
        return sums.mul_(-2).add_(norms[:, None]).add_(others)

    def bounds_of(
        self, points: torch.Tensor, pairs: torch.Tensor, limits: torch.Tensor
    ) -> torch.Tensor:
        """Return the bounds of given pairs [p, 2] of bound vectors, float32 [p].

        A pair is dropped at the first part that takes its bound beyond its limit, float32 [p]:
        squares only add up, so the sum so far is a bound as well.
        """
        bounds = points[:, -1][pairs].sum(1).mul_(-self._margin())
        parts = self.parts()
        longest = max((part.stop - part.start for part in parts), default=0)
        shape = 2 * min(PAIRS_AT_ONCE, len(pairs)), longest
        room = fresh(shape, torch.float32, points.device)
        still = torch.arange(len(pairs), device=points.device)
        for part in parts:
            for some in torch.split(still, PAIRS_AT_ONCE):
                bounds[some] += _squared(points[:, part], pairs[some], room)
            still = still[bounds[still] <= limits[still]]
        return bounds

    def parts(self) -> Sequence[slice]:
        """Return the parts of a bound vector, in the order in which differences are summed."""
        return self._panels()

    def _panels(self) -> list[slice]:
        starts = range(0, self.width, _PANEL)
        return [slice(start, min(start + _PANEL, self.width)) for start in starts]

    def _margin(self) -> float:
        """Return the largest error of a squared distance, relative to the sum of squared norms."""
        return 2 * sure_error(min(self.width, _PANEL) + len(self._panels()) + _AROUND)


def _squared(points: torch.Tensor, pairs: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
    """Return the squared distances of pairs of vectors, float32 [p]."""
    ends = pairs.T.reshape(-1)
    both = room[: len(ends), : points.shape[1]]
    torch.index_select(points, 0, ends, out=both)
    x, y = both.chunk(2)
    x.sub_(y)
    return torch.mul(x, x, out=y).sum(1)


@dataclass(frozen=True)
class DenseError:
    """How far distances in the dense matrix may be from the true ones of the stored rows.

    Attributes
    ----------
    share
        Largest error, relative to ‖x‖² + ‖y‖² of the centred rows under absolute weights.
    most
        Largest error for any two rows: activations have at most norm 1 at each position, and
        non-negative ones are at most a right angle apart.
    """

    share: float
    most: float

    @classmethod
    def of(
        cls, weights: NDArray[np.float32], layout: RowLayout, dtype: str, columns: Columns
    ) -> "DenseError":
        """Derive the errors for a head; its weights may have any sign."""
        error = kernels.kernel_of(columns.device).error
        if error is None:
            error = likely_error(widest(columns) + _AROUND)
        share = 2 * error  # of the product, which is taken twice, and of the norms
        norm = sum(
            float(np.abs(weights[tap]).max()) * height * width
            for tap, (_, height, width) in zip(layout.slices, layout.taps, strict=True)
        )
        centred = (2 if dtype == "uint16" else 4) * norm * 1.01  # 1 % for rounded activations
        return cls(share, share * 2 * centred)

    def reach(self, distance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the largest true distance of rows whose dense-matrix distance is `distance`."""
        rounded = distance * (1 + np.copysign(_DIRECT, distance))
        return np.asarray(np.where(distance < DIRECT_BELOW, rounded, rounded + self.most))

    def doubt(self, distances: torch.Tensor) -> torch.Tensor:
        """Return how far direct distances may differ from the dense matrix's, for any rows."""
        return distances.abs().mul_(_DIRECT).add_(self.most)

    def surely_over(self, distance: float) -> float:
        """Return the direct distance beyond which the dense matrix surely exceeds `distance`."""
        return (distance + self.most) * (1 + 2 * _DIRECT)

    def doubt_of(
        self, distances: torch.Tensor, rows: torch.Tensor, pairs: torch.Tensor, scoring: Scoring
    ) -> torch.Tensor:
        """Return a much tighter `doubt`, for distances of known pairs [p, 2] of stored rows."""
        which, places = torch.unique(pairs, return_inverse=True)
        to_centre = torch.stack([which, torch.zeros_like(which)], 1)
        absolute = replace(scoring.columns, signs=None)
        centre = scoring.centre.to(rows.dtype)[None]
        norms = direct_distances(rows, centre, to_centre, absolute)
        return distances.abs().mul_(_DIRECT).add_(norms[places].sum(1), alpha=self.share)
