"""Pooled rows: the means of a row over the cells of a grid, which give lower bounds of distances.

By Jensen's inequality the squared difference of two means is at most the mean of the squared
differences. So for nonnegative weights, the distance of two pooled rows, each cell weighted by its
share of the positions, never exceeds the distance of the rows. Pooling is linear and does not
depend on the head.
"""

import itertools

import numpy as np
import torch
from numpy.typing import NDArray

from ..backbones.layout import RowLayout
from ..common.precision import exact_arithmetic
from .rows import STEPS

GRIDS = (2, 4)
"""Cells along each side, coarse to fine; each grid's cells are unions of the next grid's cells."""

POOLED_ERROR = {"uint16": 0.5 / 65535, "int16": 0.5 / 32767, "float32": 2.0**-24}
"""Largest error of a stored mean, by row dtype: sums are exact or in float64, then rounded once."""
_TORCH = {"uint16": torch.uint16, "int16": torch.int16}
_WORTH_IT = 6  # times shorter than the row, or a bound costs more than it saves
_EXACT_FLOAT32 = 1 << 24  # integers up to this are exact


def useful_grids(layout: RowLayout) -> tuple[int, ...]:
    """Return the grids whose pooled rows are much shorter than the rows themselves."""
    return tuple(g for g in GRIDS if _WORTH_IT * pooled_layout(layout, g).length <= layout.length)


def pooled_layout(layout: RowLayout, grid: int) -> RowLayout:
    """Return the layout of a pooled row; sides shorter than the grid stay as they are."""
    return RowLayout(tuple((c, min(grid, h), min(grid, w)) for c, h, w in layout.taps))


@exact_arithmetic()
def pool_rows(
    rows: torch.Tensor, layout: RowLayout, dtype: str, grids: tuple[int, ...]
) -> list[torch.Tensor]:
    """Pool stored rows.

    Parameters
    ----------
    rows
        Stored rows of `layout`, [n, length], of the row dtype `dtype`.
    grids
        Grids from `GRIDS`, coarse to fine.

    Returns
    -------
    list of Tensor
        For each grid the pooled rows [n, length of `pooled_layout`], of the same dtype: the mean
        of each cell, with an error of at most `POOLED_ERROR`.
    """
    pooled = [
        torch.empty(len(rows), pooled_layout(layout, grid).length, dtype=rows.dtype)
        for grid in grids
    ]
    finest = grids[-1]
    for tap, (shape, columns) in enumerate(zip(layout.taps, layout.slices, strict=True)):
        sums = _cell_sums(rows[:, columns].view(-1, *shape), dtype, finest)
        for out, grid in zip(pooled, grids, strict=True):
            means = _coarser(sums, shape, finest, grid).div_(_positions(shape, grid))
            out[:, pooled_layout(layout, grid).slices[tap]] = _store(means.flatten(1), dtype)
    return pooled


def pooled_weights(
    weights: NDArray[np.float32], layout: RowLayout, grid: int
) -> NDArray[np.float32]:
    """Convert the column weights of a head (see `column_weights`) to weights for pooled rows."""
    parts = []
    for shape, columns in zip(layout.taps, layout.slices, strict=True):
        by_channel = weights[columns].reshape(shape[0], -1)[:, 0].astype(np.float64)
        cells = _positions(shape, grid).numpy().reshape(-1)
        parts.append(np.outer(by_channel, cells).reshape(-1))
    return np.concatenate(parts).astype(np.float32)


def _edges(side: int, grid: int) -> list[int]:
    """Return the edges of `grid` parts of `side` positions, or of single positions if fewer."""
    cells = min(grid, side)
    return [side * cell // cells for cell in range(cells + 1)]


def _positions(shape: tuple[int, int, int], grid: int) -> torch.Tensor:
    """Return the number of positions in each cell, float64 [cells down, cells across]."""
    down, across = (torch.tensor(_edges(side, grid)).diff().to(torch.float64) for side in shape[1:])
    return torch.outer(down, across)


def _membership(edges: list[int], dtype: torch.dtype) -> torch.Tensor:
    """Return a matrix [positions, cells]: 1 where a position belongs to a cell."""
    members = torch.zeros(edges[-1], len(edges) - 1, dtype=dtype)
    for cell, (start, stop) in enumerate(itertools.pairwise(edges)):
        members[start:stop, cell] = 1
    return members


def _cell_sums(tap: torch.Tensor, dtype: str, grid: int) -> torch.Tensor:
    """Sum a tap [n, C, H, W] over cells: float64 [n, C, cells down, cells across]."""
    down, across = (_edges(side, grid) for side in tap.shape[2:])
    widest = max(stop - start for start, stop in itertools.pairwise(across))
    whole = dtype != "float32" and widest * STEPS[dtype] <= _EXACT_FLOAT32
    first = torch.float32 if whole else torch.float64
    strips = (tap.to(first) @ _membership(across, first)).to(torch.float64)
    return _membership(down, torch.float64).T @ strips


def _coarser(sums: torch.Tensor, shape: tuple[int, int, int], fine: int, grid: int) -> torch.Tensor:
    """Add up the cell sums of a fine grid to those of a coarser grid."""
    joined = []
    for side in shape[1:]:
        starts, ends = _edges(side, fine)[:-1], _edges(side, grid)
        joined.append(_membership(np.searchsorted(starts, ends).tolist(), torch.float64))
    return joined[0].T @ sums @ joined[1]


def _store(means: torch.Tensor, dtype: str) -> torch.Tensor:
    """Round means in stored units to the row dtype."""
    return means.to(torch.float32) if dtype == "float32" else means.round_().to(_TORCH[dtype])
