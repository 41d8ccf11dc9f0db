"""Plan how a matrix is scored: tiles of the result, slabs of rows that fit in memory.

Tile and block can change the bits of a distance, so they depend on the collection alone. The memory
only decides how often a row is read.
"""

import math
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

from ...cache.errors import UsageError
from ..common.budget import Budget
from ..common.tasks import Crew
from ..distances.distances import block_of
from ..distances.gram import panels_together
from ..distances.panels import PANEL
from ..distances.threads import THREADS

_TILE = 512
_PIECES = (2048, 1024, 512, 256, 128, 64, 32, 16)
_PANEL_BYTES = THREADS * 4 * PANEL  # of one converted row
_PAIR_BYTES = 28  # of one pair in a piece: float64 sums, distances, their mirror, the result
_PARTS_EACH = 4  # parts of a matrix for each worker: few enough to read rows seldom
_PIECE_SHARE = 4  # the arithmetic may take one part in so many of the memory


class Slab(NamedTuple):
    """A range of rows in memory together: rows down the matrix or, with `across`, across it."""

    across: bool
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        """The range as a slice."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class MatrixStep:
    """Two slabs in memory together whose pairs are scored; equal on the diagonal."""

    down: Slab
    across: Slab


@dataclass(frozen=True)
class MatrixPlan:
    """How a matrix is cut into tiles, slabs and pieces.

    Attributes
    ----------
    rows, columns
        The shape; `columns` None means all pairs of the rows, of which half are computed.
    tile
        Rows and columns of a tile, the unit in which the result is written.
    block
        Rows on either side of a product, from `lpipstore.pipeline.distances.distances.block_of`.
    slab
        Rows of either side in memory at a time; a multiple of `tile`, or all.
    piece
        Rows on either side of one computation; a multiple of `tile`, or all.
    ahead
        Whether memory allows reading a third slab while two are scored.
    """

    rows: int
    columns: int | None
    tile: int
    block: int
    slab: int
    piece: int
    ahead: bool

    @property
    def pairs(self) -> int:
        """Number of pairs that are scored."""
        return self.rows * (self.rows - 1) // 2 if self.columns is None else self.area

    @property
    def area(self) -> int:
        """Number of entries of the matrix."""
        return self.rows * (self.rows if self.columns is None else self.columns)

    def tiles(self) -> list[tuple[int, int]]:
        """List the computed tiles as (row, column), counted in tiles."""
        down = range(-(-self.rows // self.tile))
        if self.columns is None:
            return [(i, j) for i in down for j in down if j >= i]
        return [(i, j) for i in down for j in range(-(-self.columns // self.tile))]

    def steps(self) -> Iterator[MatrixStep]:
        """Yield the steps in an order in which each, after the first, needs at most one new slab.

        For all pairs of a collection, the last rows are read once and the first rows most often: if
        the store has no room for all rows, it holds the first ones.
        """
        down = [Slab(False, part.start, part.stop) for part in _cut(self.rows, self.slab)]
        if self.columns is None:
            for last in reversed(range(len(down))):
                yield MatrixStep(down[last], down[last])
                for first in range(last):
                    yield MatrixStep(down[first], down[last])
            return
        across = [Slab(True, part.start, part.stop) for part in _cut(self.columns, self.slab)]
        for number, one in enumerate(down):
            for other in across if number % 2 == 0 else reversed(across):
                yield MatrixStep(one, other)

    def loads(self, todo: Set[tuple[int, int]] | None = None) -> Iterator[Slab]:
        """Yield the slabs in the order in which they are read.

        `todo` holds the tiles still to be scored; None means all.
        """
        held: set[Slab] = set()
        for step in self.steps():
            if todo is not None and todo.isdisjoint(self.tiles_of(step)):
                continue
            needed = {step.down, step.across}
            yield from needed - held
            held = needed

    def pairs_in(self, row: int, column: int) -> int:
        """Return the number of pairs scored in a tile, given as in `tiles`."""
        longest = self.rows if self.columns is None else self.columns
        height = min(self.tile, self.rows - row * self.tile)
        width = min(self.tile, longest - column * self.tile)
        if self.columns is None and row == column:
            return height * (height - 1) // 2
        return height * width

    def tiles_of(self, step: MatrixStep) -> Iterator[tuple[int, int]]:
        """Yield the tiles that a step covers, as (row, column)."""
        rows, columns = (
            range(slab.start // self.tile, -(-slab.stop // self.tile))
            for slab in (step.down, step.across)
        )
        return ((row, column) for row in rows for column in columns)

    def pieces(self, step: MatrixStep) -> Iterator[tuple[slice, slice]]:
        """Yield the pieces of a step as (rows, columns), each computed at once."""
        for top in _cut(step.down.stop, self.piece, step.down.start):
            for left in _cut(step.across.stop, self.piece, step.across.start):
                if self.columns is not None or left.start >= top.start:
                    yield top, left


def _cut(stop: int, width: int, start: int = 0) -> Iterator[slice]:
    for begin in range(start, stop, width):
        yield slice(begin, min(begin + width, stop))


def plan_matrix(
    rows: int, row_bytes: int, memory: int, *, columns: int | None = None
) -> MatrixPlan:
    """Plan a matrix for rows of `row_bytes` bytes each, within `memory` bytes.

    Raises
    ------
    UsageError
        `memory` is too small for the rows; the message gives the minimum.
    """
    longest = max(rows, columns or 0)
    block = block_of(longest, row_bytes)
    tile = min(_TILE if block == block_of(_TILE, 1) else block, longest)
    panels = min(panels_together(block), -(-row_bytes // (2 * PANEL * THREADS)))  # 2 bytes at least
    budget = Budget(memory, row_bytes)
    for side in _PIECES:
        piece = max(tile, min(side, -(-longest // tile) * tile) // tile * tile)
        work = _piece_bytes(piece, panels)
        fitting = budget.rows(work)
        if work <= memory // _PIECE_SHARE and fitting >= 2 * tile:
            break
    if rows + (columns or 0) <= fitting:
        slab, ahead = max(longest, 1), False
    elif fitting // 3 >= tile:
        slab, ahead = fitting // 3 // tile * tile, True
    else:
        slab, ahead = fitting // 2 // tile * tile, False
    if slab < 1:
        raise budget.too_small(budget.bytes(2 * tile, _piece_bytes(tile, panels)))
    return MatrixPlan(rows, columns, tile, block, slab, min(piece, longest), ahead)


def shared(plan: MatrixPlan, row_bytes: int, crew: Crew) -> MatrixPlan:
    """Cut a matrix into enough pieces for all workers of a crew; each is a step of its own.

    No bit depends on it: tile and block stay.

    Raises
    ------
    UsageError
        The memory of a worker is too small.
    """
    if crew.memory is not None:
        try:
            fitting = plan_matrix(plan.rows, row_bytes, crew.memory, columns=plan.columns)
        except UsageError as error:
            raise UsageError(f"{error.message} for each worker") from error
        plan = replace(plan, slab=fitting.slab, piece=fitting.piece)
    parts = max(1, crew.workers()) * _PARTS_EACH
    longest = max(plan.rows, plan.columns or 0)
    side = math.ceil(math.sqrt(plan.rows * (plan.columns or plan.rows) / parts) / plan.tile)
    most = max(plan.tile, min(plan.slab, plan.piece) // plan.tile * plan.tile)
    side = min(side * plan.tile, most, longest)
    return replace(plan, slab=side, piece=side, ahead=False)


def _piece_bytes(piece: int, panels: int) -> int:
    """Return the bytes that scoring a piece takes: its numbers, and panels of rows on each side."""
    return piece * (piece * _PAIR_BYTES + 2 * panels * _PANEL_BYTES)
