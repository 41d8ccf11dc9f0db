"""Products of rows with rows, panel by panel of columns, added up in float64.

The panels are shared between two lanes. The shape of every product and the order of every sum
follow from sizes alone, never from the number of threads.
"""

from collections.abc import Iterator

import numpy as np
import torch

from .columns import PANEL, Columns, take
from .lanes import LANES, in_lanes

_STRIP = 64  # along the diagonal a product is not halved any further
_EIGHT = 8  # matrix units compute so many numbers at once, and edges by other means


def inner_products(
    left: torch.Tensor,
    right: torch.Tensor | None,
    columns: Columns,
    centre: torch.Tensor,
    block: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute x·(v∘y) of all pairs of centred rows, and their norms.

    Parameters
    ----------
    left, right, columns, centre, block
        As for `lpipstore.pipeline.distances.gram_distances`.

    Returns
    -------
    products, norms, other norms
        float64 [n, m], ‖x‖²_v [n], ‖y‖²_v [m], with n and m filled up by zeros (see `padded`).
        Without `right` products under the diagonal are of no use.
    """
    lanes = [_Lane(left, right, columns, centre, block) for _ in range(LANES)]
    in_lanes(lambda lane: lanes[lane].add(range(lane, len(columns.panels), LANES)), left.device)
    first, *others = lanes
    for lane in others:
        first.products.add_(lane.products)
        for side, more in zip(first.sides, lane.sides, strict=True):
            side.norms.add_(more.norms)
    return first.products, first.sides[0].norms, first.sides[-1].norms


def padded(count: int, block: int) -> int:
    """Return to how many rows `count` are filled up with zeros.

    All products are then of shapes whose numbers matrix units compute alike, so that a distance
    does not depend on where in the matrix it stands: multiples of 8, and no strip of 8 alone.
    """
    length = -(-count // _EIGHT) * _EIGHT
    alone = length % min(block, _STRIP) == _EIGHT
    return length + _EIGHT if alone else length


def fresh_zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Make a tensor of zeros; on a CPU in huge pages.

    NumPy asks for them and torch does not: first touching 16 MB took 20 ms in pages of 4 kB, as
    long as the arithmetic that they serve, and 1 ms in huge ones.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    kind = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    return torch.from_numpy(np.empty(shape, kind)).zero_()


class _Side:
    """Rows on one side of the products: a panel of them converted, and their norms so far."""

    def __init__(
        self, rows: torch.Tensor, columns: Columns, centre: torch.Tensor, block: int
    ) -> None:
        self._rows, self._columns, self._centre, self._block = rows, columns, centre, block
        length, device = padded(len(rows), block), rows.device
        self._points = fresh_zeros((length, PANEL), torch.float32, device)
        self._signed = self._points
        if columns.signs is not None:
            self._signed = fresh_zeros((length, PANEL), torch.float32, device)
        self.points, self.signed = self._points, self._signed
        self.norms = torch.zeros(length, dtype=torch.float64, device=device)

    def blocks(self) -> Iterator[slice]:
        """Yield the rows of each block."""
        for start in range(0, len(self.norms), self._block):
            yield slice(start, min(start + self._block, len(self.norms)))

    def convert(self, number: int) -> None:
        """Put (row - centre)∘√|v| of a panel into `points`, with the signs of v into `signed`."""
        panel, roots = self._columns.panels[number], self._columns.roots[number]
        self.points, self.signed = (x[:, : len(roots)] for x in (self._points, self._signed))
        middle = take(self._centre[None], panel, torch.empty_like(roots)[None])
        for block in self.blocks():  # which stay in the caches
            rows, points = self._rows[block], self.points[block]
            take(rows, panel, points)
            points[: len(rows)].sub_(middle).mul_(roots)
            signed = self.signed[block]
            if self._columns.signs is not None:
                torch.mul(points, self._columns.signs[number], out=signed)
            self.norms[block].add_(torch.linalg.vecdot(points, signed))


class _Lane:
    """Sums over some of the panels."""

    def __init__(
        self,
        left: torch.Tensor,
        right: torch.Tensor | None,
        columns: Columns,
        centre: torch.Tensor,
        block: int,
    ) -> None:
        rows = [left] if right is None else [left, right]
        self.sides = [_Side(side, columns, centre, block) for side in rows]
        lengths = len(self.sides[0].norms), len(self.sides[-1].norms)
        self.products = fresh_zeros(lengths, torch.float64, left.device)

    def add(self, panels: range) -> None:
        """Add the products of panels, block by block."""
        one, other = self.sides[0], self.sides[-1]
        for number in panels:
            for side in self.sides:
                side.convert(number)
            for top in one.blocks():
                for left in other.blocks():
                    if one is not other or left.start > top.start:
                        self._add_product(top, left)
                    elif left == top:
                        self._add_triangle(top)

    def _add_product(self, top: slice, left: slice) -> None:
        product = torch.mm(self.sides[0].points[top], self.sides[-1].signed[left].T)
        self.products[top, left].add_(product)

    def _add_triangle(self, part: slice) -> None:
        """Add what `_add_product` would, on and above the diagonal."""
        strips = -(-(part.stop - part.start) // _STRIP)
        if strips <= 1:
            self._add_product(part, part)
            return
        middle = part.start + strips // 2 * _STRIP
        first, second = slice(part.start, middle), slice(middle, part.stop)
        self._add_triangle(first)
        self._add_triangle(second)
        self._add_product(first, second)
