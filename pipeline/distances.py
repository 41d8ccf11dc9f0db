"""Distances of rows: pure functions from stored rows and column weights to float64 numbers.

The distance of two rows x and y under the column weights v of a head is

    d(x, y) = Σ_k v_k (x_k - y_k)²,    v_k = w_c / (H_l W_l) for a column of channel c in tap l,

which is LPIPS (Zhang et al. 2018, equation 1) of the two images. For all pairs of a collection it
is a matrix product, d = ‖x‖²_v + ‖y‖²_v - 2 x·(v∘y). The product cancels for rows that are nearly
equal, so the rows are centred first, products are added up over panels in float64, and every
distance that comes out small is computed again from the difference.
"""

import torch

from .columns import Columns
from .direct import direct_distances
from .layout import RowLayout
from .memory import fresh_zeros
from .precision import exact_arithmetic, fast_products
from .products import inner_products
from .rows import row_taps

_BLOCK = 256
_BLOCK_BYTES = 400_000_000  # of stored rows: two blocks have to fit in a gigabyte
_SMALLEST_BLOCK = 16

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


def centre_of(rows: torch.Tensor) -> torch.Tensor:
    """Return float32 [length]: the mean row, in stored units, rounded to a whole step for integers.

    Any centre gives the same distances, and a whole one makes ``row - centre`` exact in float32.
    """
    mean = rows.to(torch.float32).mean(0)
    return mean if rows.dtype == torch.float32 else mean.round_()


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
    with fast_products() if fast else exact_arithmetic():
        sums, norms, other_norms = inner_products(left, right, columns, centre, block)
    distances = sums.mul_(-2).add_(norms[:, None]).add_(other_norms[None, :])
    if right is not None:
        distances = distances[: len(left), : len(right)]
        _refine(distances, distances < DIRECT_BELOW, left, right, columns)
        return distances
    distances = distances[: len(left), : len(left)].triu_(1)
    _refine(distances, (distances < DIRECT_BELOW).triu_(1), left, left, columns)
    mirrored = fresh_zeros((len(left), len(left)), torch.float64, left.device)
    return torch.add(distances, distances.T, out=mirrored)


def _refine(
    distances: torch.Tensor,
    close: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    columns: Columns,
) -> None:
    """Put direct distances in the places that `close` marks."""
    pairs = close.nonzero()
    distances[pairs[:, 0], pairs[:, 1]] = direct_distances(left, right, pairs, columns)


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
