"""Lower bounds of distances from pooled rows, with a margin for every rounding on the way.

Three errors stand between a bound as computed and the distance that the dense matrix holds:

* *of the product*: a float32 sum of n products in any order errs by γ_n times the sum of their
  absolute values at most, γ_n = n u / (1 - n u) with u = 2⁻²⁴ (Higham, *Accuracy and Stability of
  Numerical Algorithms*, 2002, section 3.1). For ``‖x‖² + ‖y‖² - 2 x·y`` that makes
  2 γ_n (‖x‖² + ‖y‖²);
* *of the stored means*: each is off by e at most, so that the root of a bound is off by
  2 e √(Σ v);
* *of the dense matrix*: its products err as well. γ_n with n = 4,096 would be far too careful
  there; rounding errors that do not conspire stay under 8 √n u times the norms, but for one case
  in 10⁹ (Higham and Mary, *A new approach to probabilistic rounding error analysis*, 2019,
  theorem 3.1 with λ = 8). What is measured is ten times smaller than that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..backbones.layout import RowLayout
from ..common.memory import fresh
from ..common.precision import exact_arithmetic
from ..distances.direct import PAIRS_AT_ONCE, direct_distances
from ..distances.distances import DIRECT_BELOW
from ..distances.panels import Columns, widest

UNIT = 2.0**-24
"""The relative error of one float32 rounding."""


_AROUND = 8  # roundings of the operands and sums around a product, all in all


_LIKELY = 8  # λ of Higham and Mary


_PANEL = 4096  # columns of one float32 sum: the longer, the wider the margin


def sure_error(terms: int) -> float:
    """Return γ of Higham: the largest relative error of a float32 sum of so many products."""
    return terms * UNIT / (1 - terms * UNIT)


def likely_error(terms: int) -> float:
    """Return the relative error that a float32 sum of so many products stays under in practice."""
    return _LIKELY * math.sqrt(terms) * UNIT


_DIRECT = sure_error(2 * _AROUND)  # relative error of a distance from differences, rounded


@dataclass(frozen=True)
class BoundStage:
    """One stage of the cascade: points whose squared distances are bounds, under one head.

    A point is a row of float32 numbers [width + 1], of which the last is its squared norm.

    Attributes
    ----------
    name
        What the stage is called in summaries.
    width
        Numbers of a point.
    slack
        How far the root of a bound can be off because the points are rounded.
    """

    name: str
    width: int
    slack: float

    def limit(self, distance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the largest bound that a pair can have whose true distance is `distance`."""
        roots = np.sqrt(np.maximum(distance, 0)) + self.slack
        return np.asarray(roots**2 * (1 + _AROUND * UNIT))

    @exact_arithmetic()
    def bounds(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return a bound for all pairs of two sets of points, float32 [n, m]."""
        sums = left.new_zeros(len(left), len(right))
        for panel in self._panels():
            sums.addmm_(left[:, panel], right[:, panel].T)
        lowered = 1 - self._margin()
        norms, others = (points[:, -1] * lowered for points in (left, right))
        return sums.mul_(-2).add_(norms[:, None]).add_(others)

    def bounds_of(
        self, points: torch.Tensor, pairs: torch.Tensor, limits: torch.Tensor
    ) -> torch.Tensor:
        """Return a bound for each of some pairs [p, 2] of points, float32 [p].

        A pair is given up at the first part that takes its bound beyond its limit, float32 [p]:
        squares only add up, so that what there is by then is a bound as well.
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
        """Return the parts of a point that differences are added up in, one after another."""
        return self._panels()

    def _panels(self) -> list[slice]:
        starts = range(0, self.width, _PANEL)
        return [slice(start, min(start + _PANEL, self.width)) for start in starts]

    def _margin(self) -> float:
        """Return the largest error of a squared distance, over the squared norms of both points."""
        return 2 * sure_error(min(self.width, _PANEL) + len(self._panels()) + _AROUND)


def _squared(points: torch.Tensor, pairs: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
    """Return the squared distances of pairs of points, float32 [p]."""
    ends = pairs.T.reshape(-1)
    both = room[: len(ends), : points.shape[1]]
    torch.index_select(points, 0, ends, out=both)
    x, y = both.chunk(2)
    x.sub_(y)
    return torch.mul(x, x, out=y).sum(1)


@dataclass(frozen=True)
class DenseError:
    """How far the distances of the dense matrix may be from the true ones of the stored rows.

    Attributes
    ----------
    share
        Largest error, over ‖x‖² + ‖y‖² of the centred rows under absolute weights.
    most
        Largest error for any two rows: activations have norm 1 at each position at most, and
        those that are never negative are never more than a right angle apart.
    """

    share: float
    most: float

    @classmethod
    def of(
        cls, weights: NDArray[np.float32], layout: RowLayout, dtype: str, columns: Columns
    ) -> "DenseError":
        """Find the errors that a head of any sign allows."""
        share = 2 * likely_error(widest(columns) + _AROUND)
        norm = sum(
            float(np.abs(weights[tap]).max()) * height * width
            for tap, (_, height, width) in zip(layout.slices, layout.taps, strict=True)
        )
        centred = (2 if dtype == "uint16" else 4) * norm * 1.01  # 1 % for rounded activations
        return cls(share, share * 2 * centred)

    def reach(self, distance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far two rows may truly be whose distance in the dense matrix is `distance`."""
        rounded = distance * (1 + np.copysign(_DIRECT, distance))
        return np.asarray(np.where(distance < DIRECT_BELOW, rounded, rounded + self.most))

    def doubt(self, distances: torch.Tensor) -> torch.Tensor:
        """Return how far direct distances may be off those in the dense matrix, for any rows."""
        return distances.abs().mul_(_DIRECT).add_(self.most)

    def surely_over(self, distance: float) -> float:
        """Return from where on a direct distance is larger than `distance` in the dense matrix."""
        return (distance + self.most) * (1 + 2 * _DIRECT)

    def doubt_of(
        self,
        distances: torch.Tensor,
        rows: torch.Tensor,
        pairs: torch.Tensor,
        columns: Columns,
        centre: torch.Tensor,
    ) -> torch.Tensor:
        """Return the same for the pairs [p, 2] of stored rows that they belong to, much smaller."""
        which, places = torch.unique(pairs, return_inverse=True)
        to_centre = torch.stack([which, torch.zeros_like(which)], 1)
        absolute = replace(columns, signs=None)
        norms = direct_distances(rows, centre.to(rows.dtype)[None], to_centre, absolute)
        return distances.abs().mul_(_DIRECT).add_(norms[places].sum(1), alpha=self.share)
