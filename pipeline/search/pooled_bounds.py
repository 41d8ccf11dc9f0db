"""Bound stages: vectors made from pooled rows, whose distances are lower bounds.

A `Grid` uses pooled rows as they are. `project` projects the bound vectors of a grid onto the few
directions in which images of the collection differ most. A projection is never longer than the
original, whatever the directions, so it gives lower bounds too: a bound from a hundred numbers
comes near to one from thousands.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..backbones.layout import RowLayout
from ..common.precision import exact_arithmetic
from ..distances.panels import PANEL, Columns
from ..distances.threads import one_thread
from ..features.pooling import POOLED_ERROR, pooled_weights
from ..features.rows import centre_of
from .bounds import UNIT, BoundStage, sure_error

_DIRECTIONS = 128
_FEWEST_SEEN = 128  # images that directions are derived from: an eighth of all, within limits
_MOST_SEEN = 512
_ROWS = 256  # prepared together: a panel of them stays in the CPU caches
_PART = 1024  # numbers projected in one product: the longer, the larger the slack
_DOUBLE_UNIT = 2.0**-53  # relative error of one float64 rounding
_SMALLEST = 1e-5  # share of the largest variance under which a direction is rounding noise


@dataclass(frozen=True)
class Grid(BoundStage):
    """Bound stage of the pooled rows of one grid.

    Attributes
    ----------
    columns, centre
        The head on pooled rows, and their centre: see `lpipstore.pipeline.distances.distances`.
    telling
        Parts of a bound vector; those in which images differ most come first.
    """

    columns: Columns
    centre: torch.Tensor
    telling: tuple[slice, ...]

    @classmethod
    def of(
        cls,
        grid: int,
        weights: NDArray[np.float32],
        layout: RowLayout,
        dtype: str,
        some: torch.Tensor,
    ) -> "Grid":
        """Prepare a stage for a head with non-negative column weights (see `column_weights`).

        `some` holds representative pooled rows, [n, length].
        """
        pooled = pooled_weights(weights, layout, grid)
        slack = 2 * POOLED_ERROR[dtype] * math.sqrt(float(pooled.sum(dtype=np.float64)))
        columns = Columns.of(pooled, dtype, torch.device("cpu"))
        width = sum(map(len, columns.roots))
        stage = cls(f"{grid}x{grid}", width, slack, columns, centre_of(some), ())
        return stage._tell(torch.from_numpy(stage.prepare(some.numpy())))

    def _tell(self, points: torch.Tensor) -> "Grid":
        """Return this stage with its parts sorted: those in which `points` differ most first."""
        parts = super().parts()
        apart = [float(points[:, part].square().sum()) for part in parts]
        order = np.argsort(apart, kind="stable")[::-1].tolist()
        return replace(self, telling=tuple(parts[k] for k in order))

    def parts(self) -> Sequence[slice]:
        """Return the parts of a bound vector; those in which images differ most come first."""
        return self.telling

    def prepare(self, rows: NDArray[np.generic]) -> NDArray[np.float32]:
        """Turn stored pooled rows [n, length] into bound vectors."""
        out = np.empty((len(rows), self.width + 1), np.float32)

        for start in range(0, len(rows), _ROWS):
            some = slice(start, start + _ROWS)
            self._put(torch.from_numpy(rows[some]), torch.from_numpy(out[some]))
        return out

    def _put(self, stored: torch.Tensor, points: torch.Tensor) -> None:
        start = 0
        for panel, roots in zip(self.columns.panels, self.columns.roots, strict=True):
            whole = points[:, start : start + len(roots)]
            for columns in panel:
                part = points[:, start : start + columns.stop - columns.start]
                part.copy_(stored[:, columns]).sub_(self.centre[columns])
                start += part.shape[1]
            whole.mul_(roots)
        _put_norms(points)


def images_to_see(count: int) -> int:
    """Return from how many of `count` images to derive directions; 0 if they do not pay off."""
    seen = min(_MOST_SEEN, max(_FEWEST_SEEN, count // 8))
    return seen if count >= 4 * seen else 0


def project(
    grid: BoundStage, seen: torch.Tensor, blocks: Iterable[torch.Tensor]
) -> tuple[BoundStage, NDArray[np.float32]] | None:
    """Project the bound vectors of a grid onto the directions in which a sample differs most.

    Parameters
    ----------
    grid
        The stage that the bound vectors belong to.
    seen
        The sample from which directions are derived (principal components, about the grid's
        centre).
    blocks
        All bound vectors, block by block, on the CPU.

    Returns
    -------
    (BoundStage, ndarray) or None
        The stage of the projections, and its bound vectors, float32 [images, directions + 1]. None
        if the vectors of the sample do not differ.
    """
    with one_thread(), exact_arithmetic():
        basis = principal_directions(seen[:, :-1], _DIRECTIONS)
    if basis is None:
        return None
    vectors, longest = [], 0.0
    for block in blocks:
        vectors.append(_project(block, basis))
        longest = max(longest, float(block[:, -1].max()))
    slack = grid.slack + projection_slack(basis, longest)
    name = f"{basis.shape[1]} directions"
    return BoundStage(name, basis.shape[1], slack), np.concatenate(vectors)


def projection_slack(basis: torch.Tensor, longest: float) -> float:
    """Return by how much rounding can lengthen the difference of two projected vectors.

    `longest` is the largest squared norm of the vectors before they are projected.
    """
    # Each coordinate is off by u because its direction is rounded, and by γ of its sum (Higham,
    # section 3.1), both times the norm of the vector, itself known to a part in a thousand
    terms = min(len(basis), _PART) + -(-len(basis) // _PART)
    return 2 * (sure_error(terms) + UNIT) * math.sqrt(basis.shape[1] * longest) * 1.001


def principal_directions(points: torch.Tensor, count: int) -> torch.Tensor | None:
    """Return the `count` directions of largest variance of vectors [n, width].

    Returns
    -------
    Tensor [width, at most count], float32, or None
        Projecting onto it lengthens no vector, apart from rounding. None if all vectors are 0.
    """
    variances, mixes = torch.linalg.eigh((points @ points.T).to(torch.float64))
    variances, mixes = variances.flip(0)[:count], mixes.flip(1)[:, :count]
    chosen = variances > _SMALLEST * variances[0].clamp(min=0)
    if not chosen.any():
        return None
    # The others become directions of length 0: a round number of columns makes products fastest
    mixes = torch.where(chosen, mixes / variances.sqrt(), 0)
    basis = points.T @ mixes.to(torch.float32)
    # Any basis of norm at most 1 gives bounds: find its norm, and the error of that sum
    off = -chosen.to(torch.float64).diag()
    for part in torch.split(basis, _PART):
        off.addmm_(part.T.to(torch.float64), part.to(torch.float64))
    sizes = float(torch.linalg.matrix_norm(basis)) ** 2 + basis.shape[1]
    rounding = 2 * len(basis) * _DOUBLE_UNIT * sizes
    longest = 1 + float(torch.linalg.matrix_norm(off)) + rounding
    return basis.div_(math.sqrt(longest))


@exact_arithmetic()
def _project(points: torch.Tensor, basis: torch.Tensor) -> NDArray[np.float32]:
    """Return the projections of vectors [n, at least width] and, behind each, its squared norm."""
    out = np.zeros((len(points), basis.shape[1] + 1), np.float32)
    vectors = torch.from_numpy(out)
    for start in range(0, len(basis), _PART):
        part = slice(start, min(start + _PART, len(basis)))
        vectors[:, :-1].addmm_(points[:, part], basis[part])
    _put_norms(vectors)
    return out


def _put_norms(points: torch.Tensor) -> None:
    """Write the squared norm of each bound vector into its last number."""
    points[:, -1] = 0
    for part in torch.split(points[:, :-1], PANEL, 1):
        points[:, -1].add_(part.square().sum(1))
