"""Products of rows with rows on tensor cores: float32 numbers as two half-precision parts.

Tensor cores multiply float16 numbers ten times as fast as other units multiply float32 ones, and
add up in float32. A number p is split into ``h = half(p)`` and ``l = half(p - h)``, and

    p q = h h' + (h l' + l h') + rest

takes three such products (Markidis et al. 2018, "NVIDIA Tensor Core Programmability, Performance &
Precision"; Ootomo and Yokota 2022, arXiv 2203.03341). Sums over panels of bounded length are added
in float64.

The error of ``Σ p q``. Points are scaled by a power of two to at most 2**12, so no part overflows.

1. float16 has 11 bits: ``|p - h| ≤ 2**-11 |p|``, a difference that float32 holds exactly, and
   ``|p - h - l| ≤ 2**-22 |p| + 2**-25``, the latter where l is subnormal. So the rest is at most
   ``3.01 · 2**-22 |p q| + 2**-25 (|p| + |q|)``; with points scaled to 2**12 the second term is
   2**-37 of the largest point, which is left out below.
2. Products of two float16 numbers have 22 bits and are exact in float32. Sums over a panel of
   K terms lose, in any order, at most ``K u`` of the sum of absolute values: u is 2**-24 where
   sums are rounded to nearest, and 2**-23 where they are truncated, as tensor cores do
   (Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores"). The sum of ``h l' + l h'`` has
   2K terms, which are 2**-11 as large.

Together, with K ≤ `WIDTH`: ``|error| ≤ BOUND · Σ |p q|``, which is 1.86e-4. That is the worst
case; errors of single sums differ in sign. Emulated on rows of 16 photographs at 64 pixels,
distances were off by at most 6e-8 of their mean with sums rounded to nearest, and 7e-7 with
truncated ones.
With `fast` there is only ``h h'``: at most `FAST_BOUND`, 1.2e-3, and 1.6e-5 on those rows.

All products have the same shape, [PANELS, SIDE, width] by [PANELS, width, SIDE], whatever is to be
scored: rows are padded with zeros. So a distance has the same bits on the same device wherever its
pair stands, as far as the library sums equal shapes alike.
"""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import product

import torch

from ..common.precision import deterministic_algorithms, exact_arithmetic
from .direct import WORDS
from .panels import Columns

WIDTH = 1536
"""Most columns of a product: few enough to be exact, enough to be worth adding in float64."""

PANELS = 8
"""Panels that are multiplied in one call."""

SIDE = 512
"""Rows on each side of a product."""

BOUND = 3.01 * 2**-22 + 1.01 * WIDTH * 2**-23
"""Largest error of a product, of the sum of the absolute values of its terms."""

FAST_BOUND = 2.01 * 2**-11 + 1.01 * WIDTH * 2**-23
"""The same for the products of `fast`."""

_LARGEST = 2.0**12  # of a scaled point: sums of WIDTH squares stay far below the end of float32
_REACH = {torch.uint16: 65535.0, torch.int16: 65534.0, torch.float32: 2.0}
"""Largest difference between stored numbers, by dtype."""

_EVEN = 64  # widths are a multiple of it, as tensor cores like them

Multiply = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""``multiply(a, b)``: float16 [p, n, k] times float16 [p, k, m], summed in float32 [p, n, m]."""


def on_tensor_cores(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply on the tensor cores of a CUDA device; sums are float32 and stay so."""
    return torch.bmm(a, b, out_dtype=torch.float32)


@exact_arithmetic()
@deterministic_algorithms()
def products_of_halves(
    left: torch.Tensor,
    right: torch.Tensor | None,
    columns: Columns,
    centre: torch.Tensor,
    block: int,
    spared: Collection[tuple[int, int]] = (),
    *,
    fast: bool = False,
    multiply: Multiply = on_tensor_cores,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute x·(v∘y) for all pairs of centred rows, and the norms of the rows.

    Parameters
    ----------
    left, right, columns, centre, block, spared
        As for `lpipstore.pipeline.distances.gram.inner_products`; `block` says what `spared`
        counts in, and nothing else.
    fast
        Multiply only the first parts, as half precision does.
    multiply
        Multiplies parts.

    Returns
    -------
    products, norms, other norms
        float64 [n, m], ‖x‖²_v [n], ‖y‖²_v [m], with n and m padded to a multiple of `SIDE`; the
        errors are derived above. Without `right`, products below the diagonal are meaningless.
    """
    batches = _batches(columns, centre, left.dtype)
    one = _Side(left)
    other = one if right is None else _Side(right)
    sums = torch.zeros(len(one.norms), len(other.norms), dtype=torch.float64, device=left.device)
    wanted = _wanted(one, other, block, frozenset(spared))
    for batch in batches:
        for side in dict.fromkeys((one, other)):
            side.convert(batch, fast=fast)
        for top, across in wanted:
            plain, turned = one.plain[:, top], other.turned[:, across].transpose(1, 2)
            sums[top, across].add_(multiply(plain, turned).sum(0, dtype=torch.float64))
            if not fast:  # that was h l' + l h'
                width = plain.shape[2] // 2
                first = multiply(plain[:, :, :width], turned[:, width:])
                sums[top, across].add_(first.sum(0, dtype=torch.float64))
    return sums.mul_(batches[0].unit if batches else 1), one.norms, other.norms


def bytes_of_products(rows: int, others: int) -> int:
    """Return the device memory that products of so many rows take beside the rows themselves."""
    down, across = (-(-count // SIDE) * SIDE for count in (rows, others))
    width = WIDTH * PANELS
    converted = 2 * 2 * 2 * width * (down + across)  # two parts in two orders
    converting = 3 * 4 * width * SIDE
    call = 3 * 4 * PANELS * SIDE**2
    return converted + converting + call + 8 * down * across


@dataclass(frozen=True)
class _Batch:
    """Columns of several equally wide panels, which are converted and multiplied at a time.

    Attributes
    ----------
    numbers
        int64 [PANELS * width]: the columns; those that fill up are any, of weight 0.
    roots, signs, middle
        float32 [PANELS * width]: scaled √|v|, ±1 or None, and the centre.
    unit
        What a product of scaled points stands for.
    """

    numbers: torch.Tensor
    roots: torch.Tensor
    signs: torch.Tensor | None
    middle: torch.Tensor
    unit: float


def _batches(columns: Columns, centre: torch.Tensor, dtype: torch.dtype) -> list[_Batch]:
    """Cut the live columns of a head into batches of `PANELS` panels, all equally wide."""
    if not columns.panels:
        return []
    device = centre.device
    ranges = [part for panel in columns.panels for part in panel]
    numbers = torch.cat([torch.arange(part.start, part.stop) for part in ranges]).to(device)
    roots = torch.cat(columns.roots)
    signs = None if columns.signs is None else torch.cat(columns.signs)
    scale = _scale(roots, _REACH[dtype])
    rounds = -(-len(numbers) // (PANELS * WIDTH))
    width = PANELS * -(-len(numbers) // (rounds * PANELS * _EVEN)) * _EVEN
    short = rounds * width - len(numbers)
    parts = [
        torch.nn.functional.pad(values, (0, short)).view(rounds, width)
        for values in (numbers, roots * scale, signs if signs is not None else roots)
    ]
    return [
        _Batch(which, root, None if signs is None else sign, centre[which], scale**-2)
        for which, root, sign in zip(*parts, strict=True)
    ]


def _scale(roots: torch.Tensor, reach: float) -> float:
    """Return the power of two that brings points, at most `reach` before the roots, to the range.

    Multiplying by it changes no digit.
    """
    most = float(roots.max()) * reach
    return 2.0 ** math.floor(math.log2(_LARGEST / most)) if most > 0 else 1.0


class _Side:
    """Rows on one side of the products: their norms so far, and one converted batch.

    Attributes
    ----------
    count
        Rows without padding.
    norms
        float64 [rows].
    plain, turned
        float16 [PANELS, rows, 2 * width]: the first and the second parts of each panel; and the
        other way round, with the signs of v.
    """

    def __init__(self, rows: torch.Tensor) -> None:
        self._rows, self.count = rows, len(rows)
        length = -(-len(rows) // SIDE) * SIDE
        self.norms = torch.zeros(length, dtype=torch.float64, device=rows.device)
        self.plain = self.turned = torch.empty(0, dtype=torch.float16, device=rows.device)

    def blocks(self) -> Iterator[slice]:
        """Yield the rows of each product."""
        for start in range(0, len(self.norms), SIDE):
            yield slice(start, start + SIDE)

    def convert(self, batch: _Batch, *, fast: bool) -> None:
        """Split (row - centre)∘√|v|, scaled, into parts; add to the norms."""
        width = len(batch.numbers) // PANELS
        shape = PANELS, len(self.norms), width if fast else 2 * width
        if self.plain.shape != shape:
            self.plain = torch.zeros(shape, dtype=torch.float16, device=self._rows.device)
            self.turned = torch.zeros_like(self.plain)
        words = self._rows.view(WORDS.get(self._rows.dtype, self._rows.dtype))
        for rows in self.blocks():
            some = words[rows].index_select(1, batch.numbers).view(self._rows.dtype)
            points = some.to(torch.float32).sub_(batch.middle).mul_(batch.roots)
            here = slice(rows.start, rows.start + len(points))
            signed = points if batch.signs is None else points * batch.signs
            squares = (points * signed).sum(1, dtype=torch.float64)
            self.norms[here].add_(squares, alpha=batch.unit)
            _split(points, self.plain[:, here, :width], self.plain[:, here, width:])
            _split(signed, self.turned[:, here, shape[2] - width :], self.turned[:, here, :-width])


def _split(points: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> None:
    """Write both parts of points [rows, PANELS * width]; `second` has no columns if not wanted."""
    panels = points.view(len(points), PANELS, -1).transpose(0, 1)
    first.copy_(panels)
    if second.shape[2]:
        second.copy_(panels - first)


def _wanted(
    one: _Side, other: _Side, block: int, spared: frozenset[tuple[int, int]]
) -> list[tuple[slice, slice]]:
    """Return the rows of both sides of each product: those on and above the diagonal of a square.

    A product is left out if all blocks in it are spared.
    """
    return [
        (top, across)
        for top, across in product(one.blocks(), other.blocks())
        if (one is not other or across.start >= top.start)
        and not all(place in spared for place in _places(one, top, other, across, block))
    ]


def _places(
    one: _Side, top: slice, other: _Side, across: slice, block: int
) -> Iterator[tuple[int, int]]:
    """Yield the blocks (row, column) with rows that a product needs."""
    rows, columns = (
        range(part.start // block, -(-min(part.stop, side.count) // block))
        for side, part in ((one, top), (other, across))
    )
    yield from product(rows, columns)
