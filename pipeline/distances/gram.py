"""Products of rows with rows, summed in float64 over panels of columns.

The panels are shared between two threads. The shape of every product and the order of every sum
depend on sizes alone. Each product is computed by one thread, and panel widths are a multiple of
the number of columns that MKL sums at a time. So neither the number of threads nor the shape of a
product changes a bit. Other processors and other versions of MKL give other bits; distances then
differ by up to 1e-7.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from ..common.memory import fresh_zeros
from ..common.precision import exact_arithmetic, fast_products
from .panels import WHOLE, Columns, take
from .threads import THREADS, in_threads, spread

_STRIP = 64  # rows of a product on the diagonal; half of its square is wasted
_TOGETHER = 256  # rows times panels per call: for few rows, several panels
_EIGHT = 8  # numbers that matrix units compute at once; edges are computed differently


def inner_products(
    left: torch.Tensor,
    right: torch.Tensor | None,
    columns: Columns,
    centre: torch.Tensor,
    block: int,
    spared: Collection[tuple[int, int]] = (),
    *,
    fast: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute x·(v∘y) for all pairs of centred rows, and the norms of the rows.

    Parameters
    ----------
    left, right, columns, centre, block, fast
        As for `lpipstore.pipeline.distances.distances.gram_distances`.
    spared
        Blocks (row, column) whose products are not needed.

    Returns
    -------
    products, norms, other norms
        float64 [n, m], ‖x‖²_v [n], ‖y‖²_v [m], with n and m padded with zeros (see `padded`).
        Without `right`, products below the diagonal are meaningless.
    """
    batches = _Batch.of(columns, centre, panels_together(block))
    threads = [
        _ThreadSum(left, right, batches[thread::THREADS], block, spared)
        for thread in range(THREADS)
    ]
    with fast_products() if fast else exact_arithmetic():
        in_threads(lambda thread: threads[thread].add(), left.device)
    first, *others = threads
    for thread in others:
        first.products.add_(thread.products)
        for side, more in zip(first.sides, thread.sides, strict=True):
            side.norms.add_(more.norms)
    return first.products, first.sides[0].norms, first.sides[-1].norms


def panels_together(block: int) -> int:
    """Return the number of panels that a thread converts and multiplies at a time.

    For few rows, calls on a single panel would cost more overhead than work.
    """
    return max(1, _TOGETHER // block)


def padded(count: int, block: int) -> int:
    """Return `count` rounded up to the number of rows after padding with zeros.

    The result is a multiple of 8, with no strip of only 8 rows. Matrix units compute all products
    of such shapes alike, so a distance does not depend on its place in the matrix.
    """
    length = -(-count // _EIGHT) * _EIGHT
    alone = length % min(block, _STRIP) == _EIGHT
    return length + _EIGHT if alone else length


@dataclass(frozen=True)
class _Batch:
    """Several equally wide panels that are converted and multiplied at a time.

    The tensors are [panels, 1, width]. They are built before the threads start: every Python call
    in a thread has to wait for the interpreter lock.
    """

    panels: tuple[tuple[slice, ...], ...]
    roots: torch.Tensor
    signs: torch.Tensor | None
    middle: torch.Tensor

    @classmethod
    def of(cls, columns: Columns, centre: torch.Tensor, together: int) -> "list[_Batch]":
        """Cut the panels into batches, equally many for each thread if there are several."""
        batches = []
        for _, alike in groupby(range(len(columns.panels)), lambda k: len(columns.roots[k])):
            numbers = list(alike)
            rounds = -(-len(numbers) // (together * THREADS))
            size = -(-len(numbers) // (rounds * THREADS))
            for start in range(0, len(numbers), size):
                part = slice(numbers[start], numbers[start : start + size][-1] + 1)
                panels = columns.panels[part]
                roots = _filled(columns.roots[part])
                signs = None if columns.signs is None else _filled(columns.signs[part])
                middle = torch.zeros_like(roots)
                for panel, row in zip(panels, middle, strict=True):
                    take(centre[None], panel, row)
                batches.append(cls(panels, roots, signs, middle))
        return batches


def _filled(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack the column data of panels to [panels, 1, width], padded with zeros.

    Weights of 0 cancel the contents of the padding columns: see `panels`.
    """
    stacked = torch.stack(list(parts))[:, None]
    return torch.nn.functional.pad(stacked, (0, -stacked.shape[2] % WHOLE))


class _Side:
    """Rows on one side of the products: one converted batch of panels, and the norms so far."""

    def __init__(self, rows: torch.Tensor, batches: Sequence[_Batch], block: int) -> None:
        self._rows, self._block = rows, block
        length = padded(len(rows), block)
        together = max((len(batch.panels) for batch in batches), default=0)
        width = max((batch.roots.shape[2] for batch in batches), default=0)

        def room(rows: int) -> torch.Tensor:
            return fresh_zeros((together, rows, width), torch.float32, self._rows.device)

        self._points, self._squares = room(length), room(min(block, length))
        signed = any(batch.signs is not None for batch in batches)
        self._signed = room(length) if signed else self._points
        self.points, self.signed = self._points, self._signed
        self.norms = torch.zeros(length, dtype=torch.float64, device=rows.device)

    def blocks(self) -> Iterator[slice]:
        """Yield the rows of each block."""
        for start in range(0, len(self.norms), self._block):
            yield slice(start, min(start + self._block, len(self.norms)))

    def convert(self, batch: _Batch) -> None:
        """Write (row - centre)∘√|v| to `points`, and its product with the signs of v to `signed`.

        Both are [panels, rows, width].
        """
        here = slice(len(batch.panels)), slice(None), slice(batch.roots.shape[2])
        self.points, self.signed = self._points[here], self._signed[here]
        for block in self.blocks():  # blocks stay in the caches
            rows, points, signed = self._rows[block], self.points[:, block], self.signed[:, block]
            for panel, part in zip(batch.panels, points, strict=True):
                take(rows, panel, part)
            points[:, : len(rows)].sub_(batch.middle).mul_(batch.roots)
            if batch.signs is not None:
                torch.mul(points, batch.signs, out=signed)
            squares = self._squares[here][:, : points.shape[1]]
            for part in torch.mul(points, signed, out=squares).sum(2):
                self.norms[block].add_(part)


class _ThreadSum:
    """Sums over the panels of one thread."""

    def __init__(
        self,
        left: torch.Tensor,
        right: torch.Tensor | None,
        batches: Sequence[_Batch],
        block: int,
        spared: Collection[tuple[int, int]],
    ) -> None:
        rows = [left] if right is None else [left, right]
        self._batches, self._block, self._spared = batches, block, spared
        self.sides = [_Side(side, batches, block) for side in rows]
        lengths = len(self.sides[0].norms), len(self.sides[-1].norms)
        self.products = fresh_zeros(lengths, torch.float64, left.device)

    def add(self) -> None:
        """Add the products of this thread's panels, block by block."""
        products = list(self._products())
        for batch in self._batches:
            for side in self.sides:
                side.convert(batch)
            spread(self._add_product, products, self.products.device)

    def _products(self) -> Iterator[tuple[slice, slice]]:
        """Yield the row ranges of both sides of each product."""
        one, other = self.sides[0], self.sides[-1]
        for top in one.blocks():
            for left in other.blocks():
                if (top.start // self._block, left.start // self._block) in self._spared:
                    continue
                if one is not other or left.start > top.start:
                    yield top, left
                elif left == top:  # only on and above the diagonal
                    for start in range(top.start, top.stop, _STRIP):
                        yield slice(start, min(start + _STRIP, top.stop)), slice(start, top.stop)

    def _add_product(self, where: tuple[slice, slice]) -> None:
        top, left = where
        points, signed = self.sides[0].points[:, top], self.sides[-1].signed[:, left]
        for product in torch.bmm(points, signed.transpose(1, 2)):
            self.products[top, left].add_(product)
