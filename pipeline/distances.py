"""Distances of rows: pure functions from stored rows and column weights to float64 numbers.

The distance of two rows x and y under the column weights v of a head is

    d(x, y) = Σ_k v_k (x_k - y_k)²,    v_k = w_c / (H_l W_l) for a column of channel c in tap l,

which is LPIPS (Zhang et al. 2018, equation 1) of the two images. For all pairs of a collection it
is a matrix product, d = ‖x‖²_v + ‖y‖²_v - 2 x·(v∘y). The product cancels for rows that are nearly
equal, so the rows are centred first, products are added up over panels in float64, and every
distance that comes out small is computed again from the difference.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .layout import RowLayout
from .rows import STEPS, row_taps

_BLOCK = 256
_BLOCK_BYTES = 400_000_000  # of stored rows: two blocks have to fit in a gigabyte
_SMALLEST_BLOCK = 16
_TRIANGLE = 64  # along the diagonal a product is not halved any further

DIRECT_BELOW = 1e-2
"""Distances under this are computed from the difference, where the product would cancel."""

_PANEL = 4096  # columns of one float32 product: long enough to be fast, short enough to be exact
_SHORTEST_GAP = 64  # dead columns that are worth cutting a run of live ones for
_DIRECT_PAIRS = 128  # pairs of one direct computation: two panels of them fit in the caches


@dataclass(frozen=True)
class Columns:
    """What a head makes of the columns of stored rows.

    Columns of weight 0 take no part: they are a third of AlexNet's at 64 pixels (stock head). Each
    panel is a list of column ranges, `roots` and `signs` belong to its columns one after another.

    Attributes
    ----------
    panels
        Ranges of live columns, `_PANEL` columns at most in each panel.
    roots
        For each panel float32 [width]: √(absolute v), over the row dtype's steps.
    signs
        For each panel float32 [width] of ±1, or None for a head without negative weights.
    """

    panels: tuple[tuple[slice, ...], ...]
    roots: tuple[torch.Tensor, ...]
    signs: tuple[torch.Tensor, ...] | None

    @classmethod
    def of(cls, weights: NDArray[np.float32], dtype: str, device: torch.device) -> "Columns":
        """Prepare the column weights of a head (see `column_weights`) for rows of `dtype`."""
        panels = tuple(_panels(weights != 0))
        negative = bool((weights < 0).any())
        roots, signs = [], []
        for panel in panels:
            # By panels: all columns at once in float64 take hundreds of megabytes of a long row
            live = np.concatenate([weights[columns] for columns in panel]).astype(np.float64)
            scaled = (np.sqrt(np.abs(live)) / STEPS[dtype]).astype(np.float32)
            roots.append(torch.from_numpy(scaled).to(device))
            if negative:
                signs.append(torch.from_numpy(np.sign(live).astype(np.float32)).to(device))
        return cls(panels, tuple(roots), tuple(signs) if negative else None)


def _panels(live: NDArray[np.bool_]) -> Iterator[tuple[slice, ...]]:
    """Cut the live columns into panels, bridging gaps that are too short to be worth a cut."""
    edges = np.flatnonzero(np.diff(live, prepend=False, append=False))
    starts, stops = edges[::2].tolist(), edges[1::2].tolist()
    runs: list[list[int]] = []
    for start, stop in zip(starts, stops, strict=True):
        if runs and start - runs[-1][1] < _SHORTEST_GAP:
            runs[-1][1] = stop
        else:
            runs.append([start, stop])
    panel: list[slice] = []
    room = _PANEL
    for run_start, run_stop in runs:
        start = run_start
        while start < run_stop:
            stop = min(start + room, run_stop)
            panel.append(slice(start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield tuple(panel)
                panel, room = [], _PANEL
    if panel:
        yield tuple(panel)


def block_of(count: int, row_bytes: int) -> int:
    """Return how many rows stand on either side of one product.

    The bits of a product depend on its shape, so that it has to be the same whatever part of a
    collection is in memory: it follows from the size of the collection and the length of a row
    alone. Rows are filled up with zeros where a block is not full.
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
    with _products_in("medium" if fast else "highest"):
        sums, norms, other_norms = _products(left, right, columns, centre, block)
    distances = sums.mul_(-2).add_(norms[:, None]).add_(other_norms[None, :])
    if right is not None:
        distances = distances[: len(left), : len(right)]
        _refine(distances, distances < DIRECT_BELOW, left, right, columns)
        return distances
    distances = distances[: len(left), : len(left)].triu(1)
    _refine(distances, (distances < DIRECT_BELOW).triu(1), left, left, columns)
    return distances + distances.T


@contextmanager
def _products_in(precision: str) -> Iterator[None]:
    """Set what float32 products are made of (`torch.set_float32_matmul_precision`)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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


def _products(
    left: torch.Tensor,
    right: torch.Tensor | None,
    columns: Columns,
    centre: torch.Tensor,
    block: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (x·(v∘y) for all pairs, ‖x‖²_v, ‖y‖²_v) of the centred rows, sizes filled up."""
    device = left.device
    n = -(-len(left) // block) * block
    m = n if right is None else -(-len(right) // block) * block
    sums = torch.zeros(n, m, dtype=torch.float64, device=device)
    norms = torch.zeros(n, dtype=torch.float64, device=device)
    other_norms = torch.zeros(m, dtype=torch.float64, device=device)
    scaled = torch.zeros(n, _PANEL, device=device)
    other = scaled if right is None else torch.zeros(m, _PANEL, device=device)
    for number, panel in enumerate(columns.panels):
        roots = columns.roots[number]
        width = len(roots)
        sign = None if columns.signs is None else columns.signs[number]
        middle = _take(centre[None], panel, torch.empty(1, width, device=device))
        a = b = _scale(left, panel, middle, roots, scaled[:, :width])
        _add_norms(a, sign, norms, block)
        if right is not None:
            b = _scale(right, panel, middle, roots, other[:, :width])
            _add_norms(b, sign, other_norms, block)
        signed = b if sign is None else b * sign
        if right is None:
            _add_upper_products(a, signed, sums, block)
        else:
            _add_products(a, signed, sums, block)
    return sums, norms, norms if right is None else other_norms


def _add_products(a: torch.Tensor, b: torch.Tensor, sums: torch.Tensor, block: int) -> None:
    """Add a·bᵀ to `sums` block by block."""
    for top in range(0, len(a), block):
        for left in range(0, len(b), block):
            product = torch.mm(a[top : top + block], b[left : left + block].T)
            sums[top : top + block, left : left + block].add_(product)


def _add_upper_products(a: torch.Tensor, b: torch.Tensor, sums: torch.Tensor, block: int) -> None:
    """Add what `_add_products` would, on and above the diagonal."""
    for top in range(0, len(a), block):
        here, rest = slice(top, top + block), slice(top + block, None)
        _add_triangle(a[here], b[here], sums[here, here])
        _add_products(a[here], b[rest], sums[here, rest], block)


def _add_triangle(a: torch.Tensor, b: torch.Tensor, sums: torch.Tensor) -> None:
    """Add a·bᵀ on and above the diagonal: half of a block of products is not wanted there."""
    half = len(a) // 2
    if len(a) <= _TRIANGLE or len(a) % 2:
        sums.add_(torch.mm(a, b.T))
        return
    _add_triangle(a[:half], b[:half], sums[:half, :half])
    _add_triangle(a[half:], b[half:], sums[half:, half:])
    sums[:half, half:].add_(torch.mm(a[:half], b[half:].T))


def _add_norms(a: torch.Tensor, sign: torch.Tensor | None, norms: torch.Tensor, block: int) -> None:
    """Add the norms of rows, a block at a time: then they always have the same bits."""
    for top in range(0, len(a), block):
        part = a[top : top + block]
        signed = part if sign is None else part * sign
        norms[top : top + block].add_(torch.linalg.vecdot(part, signed))


def _take(rows: torch.Tensor, panel: Sequence[slice], out: torch.Tensor) -> torch.Tensor:
    """Copy the columns of a panel, converted to float32, into the first rows of `out`."""
    start = 0
    for columns in panel:
        stop = start + columns.stop - columns.start
        out[: len(rows), start:stop].copy_(rows[:, columns])
        start = stop
    return out


def _scale(
    rows: torch.Tensor,
    panel: Sequence[slice],
    middle: torch.Tensor,
    roots: torch.Tensor,
    out: torch.Tensor,
) -> torch.Tensor:
    """Return (rows - centre)∘√v of a panel; rows of `out` beyond the last stay 0."""
    _take(rows, panel, out)
    out[: len(rows)].sub_(middle).mul_(roots)
    return out


def direct_distances(
    left: torch.Tensor, right: torch.Tensor, pairs: torch.Tensor, columns: Columns
) -> torch.Tensor:
    """Compute the distances of chosen pairs from the differences of their rows.

    Parameters
    ----------
    left, right
        Stored rows, [n, length] and [m, length].
    pairs
        int64 [p, 2]: rows of `left` and of `right`.
    columns
        The head, prepared for the dtype of the rows.

    Returns
    -------
    Tensor of shape [p], float64
        Relative error about 1e-6; never negative for heads without negative weights; exactly 0 for
        equal rows; the same bits for (x, y) and (y, x), and whatever other pairs are asked for.
    """
    distances = torch.zeros(len(pairs), dtype=torch.float64, device=left.device)
    if not len(pairs):
        return distances
    sides = [torch.unique(pairs[:, side], return_inverse=True) for side in (0, 1)]
    for number, panel in enumerate(columns.panels):
        roots = columns.roots[number]
        x, y = (
            _pick(rows, which, panel, len(roots))
            for rows, (which, _) in zip((left, right), sides, strict=True)
        )
        for start in range(0, len(pairs), _DIRECT_PAIRS):
            part = slice(start, start + _DIRECT_PAIRS)
            i, j = (places[part] for _, places in sides)
            if len(i) == 1:  # the sum of one row would be split among the threads: ask for two
                i, j = i.expand(2), j.expand(2)
            apart = x.index_select(0, i).sub_(y.index_select(0, j)).mul_(roots)
            signed = apart if columns.signs is None else apart * columns.signs[number]
            wanted = distances[part]
            wanted += torch.linalg.vecdot(apart, signed)[: len(wanted)]
    return distances


def _pick(
    rows: torch.Tensor, which: torch.Tensor, panel: Sequence[slice], width: int
) -> torch.Tensor:
    """Return the columns of a panel of chosen rows, each once, as float32 [len(which), width]."""
    out = torch.empty(len(which), width, device=rows.device)
    if len(which) == len(rows):  # all, in order
        return _take(rows, panel, out)
    bits = rows.view(torch.int16) if rows.dtype == torch.uint16 else rows  # which torch can index
    start = 0
    for columns in panel:
        stop = start + columns.stop - columns.start
        out[:, start:stop].copy_(bits[:, columns].index_select(0, which).view(rows.dtype))
        start = stop
    return out


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
