"""Distances of the remaining pairs, with the same decisions as the dense matrix."""

import numpy as np
import torch
from numpy.typing import NDArray

from ..distances.distances import gram_distances
from ..distances.near import near_distances
from ..distances.panels import Columns, live
from ..features.rowcache import Pairs, RowCache, SingleRows
from .blocks import split, windows
from .bounds import DenseError
from .cascade import PRODUCT_PAYS, Tally

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
    columns, centre, block
        Those of the dense matrix: see `gram_distances`.
    dense
        How far the dense matrix may err.
    """

    def __init__(
        self,
        rows: RowCache,
        single: SingleRows,
        side: int,
        room: int,
        columns: Columns,
        centre: torch.Tensor,
        block: int,
        dense: DenseError,
    ) -> None:
        self._rows, self._single, self._side, self._room = rows, single, side, room
        self._columns, self._centre, self._block = columns, centre, block
        self.dense = dense

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
        dense, sparse = split(pairs, self._side, _DENSE_SHARE)
        wanted = [sparse]
        if dense:
            self._single.clear()  # blocks take the same memory
        for which in dense:
            top, left = (int(number) for number in pairs[which[0]] // self._side)
            cell = self.cell(top, left, tally)
            places = pairs[which] - (top * self._side, left * self._side)
            wanted.append(which[under(cell[places[:, 0], places[:, 1]], below)])
        self._rows.clear()
        return self.decide(pairs[np.concatenate(wanted)], below, tally)

    def decide(self, pairs: Pairs, below: float, tally: Tally) -> tuple[Pairs, NDArray[np.float32]]:
        """Do the same as `below` from differences alone; pairs come sorted by candidate block."""
        distances = np.full(len(pairs), np.inf, np.float32)
        for which in windows(pairs, np.arange(len(pairs)), self._room):
            distances[which] = self._decided(*self._single.pick(pairs[which]), below, tally)
        close = under(distances, below)
        return pairs[close], distances[close]

    def cell(self, top: int, left: int, tally: Tally) -> NDArray[np.float32]:
        """Return the dense matrix's distances between two blocks of images."""
        other = self._rows.block(left) if left != top else None
        return self._as_in_matrix(self._rows.block(top), other, tally).cpu().numpy()

    def product(
        self, top: NDArray[np.int64], left: NDArray[np.int64] | None, tally: Tally
    ) -> NDArray[np.float32]:
        """Return the dense matrix's distances between two sets of at most `side` images each.

        `left` None means `top`.
        """
        rows, others = self._rows.take(top), None if left is None else self._rows.take(left)
        return self._as_in_matrix(rows, others, tally).cpu().numpy()

    def among(self, rows: torch.Tensor, tally: Tally) -> torch.Tensor:
        """Return the distances among some rows, float32 [n, n]."""
        return self._as_in_matrix(rows, None, tally)

    def _decided(
        self, rows: torch.Tensor, pairs: torch.Tensor, below: float, tally: Tally
    ) -> NDArray[np.float32]:
        """Return direct distances, or the dense matrix's where the two might decide differently."""
        distances = near_distances(
            rows, rows, pairs, self._columns, beyond=self.dense.surely_over(below)
        )
        tally.compare(len(pairs) * live(self._columns))
        shown = distances.to(torch.float32)
        off = (distances - below).abs()
        near = (off <= self.dense.doubt(distances)).nonzero()[:, 0]
        if len(near):
            doubt = self.dense.doubt_of(
                distances[near], rows, pairs[near], self._columns, self._centre
            )
            near = near[off[near] <= doubt]
        bits = rows.view(torch.int16) if rows.dtype == torch.uint16 else rows  # indexable
        for start in range(0, len(near), self._block):
            part = near[start : start + self._block]
            (left, i), (right, j) = (
                torch.unique(pairs[part, side], return_inverse=True) for side in (0, 1)
            )
            chosen, others = (bits[numbers].view(rows.dtype) for numbers in (left, right))
            shown[part] = self._as_in_matrix(chosen, others, tally)[i, j]
        return shown.cpu().numpy()

    def _as_in_matrix(
        self, left: torch.Tensor, right: torch.Tensor | None, tally: Tally
    ) -> torch.Tensor:
        """Return the dense matrix's float32 distances between two sets of rows."""
        blocks = [-(-len(rows) // self._block) for rows in (left, left if right is None else right)]
        tally.arithmetic += blocks[0] * blocks[1] * self._block**2 * live(self._columns)
        distances = gram_distances(left, right, self._columns, self._centre, self._block)
        return distances.to(torch.float32)


def under(distances: NDArray[np.float32], below: float) -> NDArray[np.bool_]:
    """Compare in float64: NumPy would round `below` to float32 first."""
    return np.asarray(distances.astype(np.float64) < below)
