"""Distances of rows: pure functions from stored rows and column weights to float64 numbers.

The distance of two rows x and y under the column weights v of a head is

    d(x, y) = Σ_k v_k (x_k - y_k)²,    v_k = w_c / (H_l W_l) for a column of channel c in tap l,

which is LPIPS (Zhang et al. 2018, equation 1) of the two images. For all pairs of a collection it
is a matrix product, d = ‖x‖²_v + ‖y‖²_v - 2 x·(v∘y). The product cancels for rows that are nearly
equal, so the rows are centred first, products are added up over panels in float64, and every
distance that comes out small is computed again from the difference.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch

from ..backbones.layout import RowLayout
from ..common.memory import fresh_zeros
from ..common.precision import exact_arithmetic, fast_products
from ..features.rows import row_taps
from .direct import direct_distances
from .gram import inner_products
from .near import near_distances
from .panels import Columns

_BLOCK = 256


_BLOCK_BYTES = 400_000_000  # of stored rows: two blocks have to fit in a gigabyte


_SMALLEST_BLOCK = 16


_LEAST_ROWS = 128  # of a square in which it pays to look for rows that are nearly equal


_ROWS_AT_ONCE = 512  # whose close pairs are listed together


_PRODUCT_ERROR = 1e-4  # of a float32 product, with room to spare


DIRECT_BELOW = 1e-2
"""Distances under this are computed from the difference, where the product would cancel."""


def block_of(count: int, row_bytes: int) -> int:
    """Return how many rows stand on either side of one product.

    The bits of a product depend on its shape, so that it has to be the same whatever part of a
    collection is in memory: it follows from the size of the collection and the length of a row
    alone.
    """
    block = _BLOCK
    while block > _SMALLEST_BLOCK and block * row_bytes > _BLOCK_BYTES:
        block //= 2
    return min(block, -(-count // _SMALLEST_BLOCK) * _SMALLEST_BLOCK)


def gram_distances(
    left: torch.Tensor,
    right: torch.Tensor | None,
    columns: Columns,
    centre: torch.Tensor,
    block: int,
    *,
    fast: bool = False,
) -> torch.Tensor:
    """Compute all distances between two sets of rows.

    Parameters
    ----------
    left, right
        Stored rows, [n, length] and [m, length]. `right` None stands for `left` again; then only
        the blocks on and above the diagonal are computed, and mirrored.
    columns
        The head, prepared for the dtype of the rows.
    centre
        From `centre_of`; has to be the same for all parts of one matrix.
    block
        From `block_of`, for the size of the whole matrix.
    fast
        Let products take the shorter numbers that the hardware is faster with (bfloat16 on CPUs
        that have it, TF32 on GPUs); sums stay as they are.

    Returns
    -------
    Tensor of shape [n, m], float64
        Absolute error about 1e-7, distances under `DIRECT_BELOW` relative error about 1e-6; rows
        that are equal have exactly 0; bitwise symmetric. Whether the rows come in one call or in
        several does not change a bit, as long as each call begins at a multiple of `block`.
    """
    known = [] if fast else _foreseen(left, right, columns, block)
    spared = {blocks for square in known if square.surely_near for blocks in square.blocks(block)}
    with fast_products() if fast else exact_arithmetic():
        sums, norms, other_norms = inner_products(left, right, columns, centre, block, spared)
    distances = sums.mul_(-2).add_(norms[:, None]).add_(other_norms[None, :])
    distances = distances[: len(left), : len(left if right is None else right)]
    close = distances < DIRECT_BELOW
    if right is None:
        distances.triu_(1)
        close.triu_(1)
    for square in known:
        square.put(distances, close)
    _refine(distances, close, left, left if right is None else right, columns)
    if right is not None:
        return distances
    mirrored = fresh_zeros((len(left), len(left)), torch.float64, left.device)
    return torch.add(distances, distances.T, out=mirrored)


class _Square(NamedTuple):
    """Distances of some rows and others that were computed before any product.

    `distances` is float64 [rows, columns], `pairs` bool of the same shape: which of them are known.
    """

    top: slice
    across: slice
    distances: torch.Tensor
    pairs: torch.Tensor

    @property
    def surely_near(self) -> bool:
        """Whether a product cannot but find all pairs under `DIRECT_BELOW`."""
        return bool((self.distances < DIRECT_BELOW - _PRODUCT_ERROR).all())

    def blocks(self, block: int) -> Iterator[tuple[int, int]]:
        """Yield the blocks that it covers, as (row, column) counted in blocks."""
        rows, columns = (
            range(part.start // block, -(-part.stop // block)) for part in (self.top, self.across)
        )
        yield from product(rows, columns)

    def put(self, distances: torch.Tensor, close: torch.Tensor) -> None:
        """Write the known distances of close pairs into place and clear them in `close`."""
        here = self.top, self.across
        mine = self.pairs if self.surely_near else close[here]
        distances[here] = torch.where(mine, self.distances, distances[here])
        close[here] = False


def _foreseen(
    left: torch.Tensor, right: torch.Tensor | None, columns: Columns, block: int
) -> list[_Square]:
    """Compute the distances of squares in which all pairs are likely to be nearly equal.

    Three rows of either side are looked at; a wrong guess costs time and changes nothing.
    """
    other = left if right is None else right
    side = block * max(1, _BLOCK // block)
    squares = [
        (top, across)
        for top in _parts(len(left), side)
        for across in _parts(len(other), side)
        if right is not None or across.start >= top.start
    ]
    probes = [
        (number, i, j)
        for number, (top, across) in enumerate(squares)
        for i in (top.start, (top.start + top.stop) // 2, top.stop - 1)
        for j in (across.start, (across.start + across.stop) // 2, across.stop - 1)
        if right is not None or i < j
    ]
    if not probes:
        return []
    tried = torch.tensor(probes, device=left.device)
    far = direct_distances(left, other, tried[:, 1:], columns, DIRECT_BELOW) >= DIRECT_BELOW
    unlike = set(tried[far, 0].tolist())
    likely = [square for number, square in enumerate(squares) if number not in unlike]
    found = []
    for top, across in likely:
        shape = top.stop - top.start, across.stop - across.start
        pairs = torch.ones(shape, dtype=torch.bool, device=left.device)
        if right is None and top == across:
            pairs.triu_(1)
        distances = torch.zeros(shape, dtype=torch.float64, device=left.device)
        places = pairs.nonzero()
        start = torch.tensor([top.start, across.start], device=left.device)
        distances[places[:, 0], places[:, 1]] = near_distances(left, other, places + start, columns)
        found.append(_Square(top, across, distances, pairs))
    return found


def _parts(count: int, side: int) -> list[slice]:
    """Cut rows into parts that are worth looking at."""
    parts = [slice(start, min(start + side, count)) for start in range(0, count, side)]
    return [part for part in parts if part.stop - part.start >= _LEAST_ROWS]


def _refine(
    distances: torch.Tensor,
    close: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    columns: Columns,
) -> None:
    """Put direct distances in the places that `close` marks."""
    for start in range(0, len(left), _ROWS_AT_ONCE):
        pairs = close[start : start + _ROWS_AT_ONCE].nonzero()
        pairs[:, 0] += start
        distances[pairs[:, 0], pairs[:, 1]] = near_distances(left, right, pairs, columns)


def pair_statistics(
    left: torch.Tensor, right: torch.Tensor, layout: RowLayout, dtype: str
) -> torch.Tensor:
    """Return s_lc = mean over positions of (x̂ - ŷ)², so that the distance is ``s · w``.

    Parameters
    ----------
    left, right
        Stored rows of the two images of each pair, [p, length].

    Returns
    -------
    Tensor of shape [p, channels of all taps], float32
    """
    taps = zip(row_taps(left, layout, dtype), row_taps(right, layout, dtype), strict=True)
    return torch.cat([(x - y).square_().mean((2, 3)) for x, y in taps], dim=1)
