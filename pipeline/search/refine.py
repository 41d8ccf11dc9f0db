"""Distances of the remaining pairs, with the same decisions as the dense matrix."""

import numpy as np
import torch
from numpy.typing import NDArray

from ..distances.near import near_distances
from ..distances.panels import live
from ..distances.scoring import Rows, Scoring
from ..features.rowcache import Pairs, RowCache, SingleRows, bits_of
from .blocks import split, windows
from .bounds import DenseError
from .cascade import PRODUCT_PAYS, Tally
from .sides import Sides

_DENSE_SHARE = PRODUCT_PAYS


class Refiner:
    """The stored rows of a collection under one head, with the arithmetic of its dense matrix.

    Parameters
    ----------
    rows, single
        The rows in blocks of `side` rows, and singly.
    side
        Rows per block, at most `BLOCK`.
    room
        Rows to hold in memory at a time.
    scoring
        That of the dense matrix.
    dense
        How far the dense matrix may err.
    sides
        The pairs that are searched.
    """

    def __init__(
        self,
        rows: RowCache,
        single: SingleRows,
        side: int,
        room: int,
        scoring: Scoring,
        dense: DenseError,
        sides: Sides,
    ) -> None:
        self._rows, self._single, self.side, self._room = rows, single, side, room
        self._scoring, self.dense, self._sides = scoring, dense, sides

    def clear(self) -> None:
        """Release all rows."""
        self._rows.clear()
        self._single.clear()

    def below(self, pairs: Pairs, below: float, tally: Tally) -> tuple[Pairs, NDArray[np.float32]]:
        """Return the given pairs whose distance in the dense matrix is under `below`.

        Distances are computed from differences, so they do not depend on which other pairs are
        asked for. They equal the dense matrix's to the bit where that is under `DIRECT_BELOW` or
        was close to `below`, and to within 1e-7 times the rows' squared norms otherwise.

        Returns
        -------
        pairs, distances
            In no particular order.
        """
        dense, sparse = split(pairs, self.side, _DENSE_SHARE)
        wanted = [sparse]
        if dense:
            self._single.clear()  # blocks take the same memory
        for which in dense:
            top, left = (int(number) for number in pairs[which[0]] // self.side)
            cell, start = self.cell(top, left, tally)
            places = pairs[which] - start
            wanted.append(which[under(cell[places[:, 0], places[:, 1]], below)])
        self._rows.clear()
        return self.decide(pairs[np.concatenate(wanted)], below, tally)

    def decide(self, pairs: Pairs, below: float, tally: Tally) -> tuple[Pairs, NDArray[np.float32]]:
        """Do the same as `below` from differences alone; pairs come sorted by candidate block."""
        distances = np.full(len(pairs), np.inf, np.float32)
        for which in windows(pairs, np.arange(len(pairs)), self._room):
            rows, places = self._single.pick(pairs[which])
            numbers, taken = decide(rows, places, below, self._scoring, self.dense)
            distances[which] = numbers
            tally.add(taken)
        close = under(distances, below)
        return pairs[close], distances[close]

    def cell(
        self, top: int, left: int, tally: Tally
    ) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """Return the dense matrix's distances between two blocks of images.

        Returns
        -------
        distances, (i, j)
            float32 [n, m], and the numbers of the images of their first row and column. Images that
            are on the wrong side are left out.
        """
        side, sides = self.side, self._sides
        own = sides.own(slice(top * side, (top + 1) * side))
        across = sides.others(slice(left * side, (left + 1) * side))
        other = None
        if not (sides.single and top == left):
            other = self._rows.block(left)[across.start - left * side : across.stop - left * side]
        rows = self._rows.block(top)[: own.stop - own.start]
        distances = _as_in_matrix(rows, other, self._scoring, tally)
        return distances.cpu().numpy(), (own.start, across.start)

    def product(
        self, top: NDArray[np.int64], left: NDArray[np.int64] | None, tally: Tally
    ) -> NDArray[np.float32]:
        """Return the dense matrix's distances between two sets of at most `side` images each.

        `left` None means `top`.
        """
        rows, others = self._rows.take(top), None if left is None else self._rows.take(left)
        return _as_in_matrix(rows, others, self._scoring, tally).cpu().numpy()

    def among(self, rows: torch.Tensor, others: torch.Tensor | None, tally: Tally) -> torch.Tensor:
        """Return the distances of some rows to others, or among themselves; float32 [n, m]."""
        return _as_in_matrix(rows, others, self._scoring, tally)


def decide(
    rows: Rows,
    pairs: torch.Tensor | NDArray[np.int64],
    below: float,
    scoring: Scoring,
    dense: DenseError,
) -> tuple[NDArray[np.float32], Tally]:
    """Return direct distances, or the dense matrix's where the two might decide differently.

    Parameters
    ----------
    rows
        Stored rows, [n, length].
    pairs
        int64 [p, 2]: row numbers.
    below
        The distance under which pairs are close.
    scoring, dense
        As for `Refiner`.

    Returns
    -------
    distances, tally
        float32 [p], and the work done.
    """
    stored, tally = scoring.placed(rows), Tally()
    ends = torch.as_tensor(pairs).to(stored.device)
    distances = near_distances(
        stored, stored, ends, scoring.columns, beyond=dense.surely_over(below)
    )
    tally.compare(len(ends) * live(scoring.columns))
    shown = distances.to(torch.float32)
    off = (distances - below).abs()
    near = (off <= dense.doubt(distances)).nonzero()[:, 0]
    if len(near):
        doubt = dense.doubt_of(distances[near], stored, ends[near], scoring)
        near = near[off[near] <= doubt]
    bits = bits_of(stored)
    for start in range(0, len(near), scoring.block):
        part = near[start : start + scoring.block]
        (left, i), (right, j) = (
            torch.unique(ends[part, side], return_inverse=True) for side in (0, 1)
        )
        chosen, others = (bits[numbers].view(stored.dtype) for numbers in (left, right))
        shown[part] = _as_in_matrix(chosen, others, scoring, tally)[i, j]
    return shown.cpu().numpy(), tally


def _as_in_matrix(
    left: torch.Tensor, right: torch.Tensor | None, scoring: Scoring, tally: Tally
) -> torch.Tensor:
    """Return the dense matrix's float32 distances between two sets of rows."""
    block = scoring.block
    blocks = [-(-len(rows) // block) for rows in (left, left if right is None else right)]
    tally.arithmetic += blocks[0] * blocks[1] * block**2 * live(scoring.columns)
    return scoring.products(left, right).to(torch.float32)


def under(distances: NDArray[np.float32], below: float) -> NDArray[np.bool_]:
    """Compare in float64: NumPy would round `below` to float32 first."""
    return np.asarray(distances.astype(np.float64) < below)
