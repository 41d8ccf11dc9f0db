"""Plan how a matrix is scored: tiles of the result, slabs of rows that fit in memory.

Tile and block can change the bits of a distance, so they depend on the collection alone. The memory
only decides how often a row is read.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..common.budget import Budget, TooLittle
from ..common.tasks import Crew
from ..distances.distances import block_of
from ..distances.gram import panels_together
from ..distances.panels import PANEL
from ..distances.threads import THREADS

_TILE = 512
SIDES = (2048, 1024, 512, 256, 128, 64, 32, 16)
"""Rows on either side of a piece, largest first."""
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

    def cut(self, width: int) -> "list[Slab]":
        """Cut the range into slabs of `width` rows; the last may have fewer."""
        starts = range(self.start, self.stop, width)
        return [self._replace(start=at, stop=min(at + width, self.stop)) for at in starts]


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
        down, across = Slab(False, 0, self.rows), Slab(True, 0, self.columns or 0)
        others = None if self.columns is None else across.cut(self.slab)
        yield from in_order(down.cut(self.slab), others)

    def loads(self, todo: Set[tuple[int, int]] | None = None) -> Iterator[Slab]:
        """Yield the slabs in the order in which they are read.

        `todo` holds the tiles still to be scored; None means all.
        """
        yield from loaded(step for step in self.steps() if todo is None or self.has(step, todo))

    def pairs_in(self, row: int, column: int) -> int:
        """Return the number of pairs scored in a tile, given as in `tiles`."""
        longest = self.rows if self.columns is None else self.columns
        height = min(self.tile, self.rows - row * self.tile)
        width = min(self.tile, longest - column * self.tile)
        if self.columns is None and row == column:
            return height * (height - 1) // 2
        return height * width

    def has(self, step: MatrixStep, todo: Set[tuple[int, int]]) -> bool:
        """Return whether some of the tiles `todo` lie in a step."""
        return not todo.isdisjoint(self.tiles_in(step.down.rows, step.across.rows))

    def tiles_in(self, rows: slice, columns: slice) -> Iterator[tuple[int, int]]:
        """Yield the computed tiles of a part of the matrix that begins with a tile."""
        for row in range(rows.start // self.tile, -(-rows.stop // self.tile)):
            for column in range(columns.start // self.tile, -(-columns.stop // self.tile)):
                if self.columns is not None or column >= row:
                    yield row, column

    def pieces(self, step: MatrixStep) -> Iterator[tuple[slice, slice]]:
        """Yield the pieces of a step as (rows, columns), each computed at once."""
        for top in step.down.cut(self.piece):
            for left in step.across.cut(self.piece):
                if self.columns is not None or left.start >= top.start:
                    yield top.rows, left.rows


def in_order(down: Sequence[Slab], across: Sequence[Slab] | None) -> Iterator[MatrixStep]:
    """Yield the steps of slabs with slabs; each, after the first, needs at most one new slab.

    `across` None stands for all pairs of `down`: the last slab is needed once, the first ones most
    often.
    """
    if across is None:
        for last in reversed(range(len(down))):
            yield MatrixStep(down[last], down[last])
            for first in range(last):
                yield MatrixStep(down[first], down[last])
        return
    for number, one in enumerate(down):
        for other in across if number % 2 == 0 else reversed(across):
            yield MatrixStep(one, other)


def loaded(steps: Iterable[MatrixStep]) -> Iterator[Slab]:
    """Yield the slabs that successive steps load, if each keeps what the one before had."""
    held: tuple[Slab, ...] = ()
    for step in steps:
        needed = step.down, step.across
        yield from (slab for slab in dict.fromkeys(needed) if slab not in held)
        held = needed


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
    plan = MatrixPlan(rows, columns, tile, block, longest, longest, False)
    budget, work = Budget(memory, row_bytes), work_of(block, row_bytes)
    fit = fitted(plan, budget, work, SIDES)
    return replace(plan, slab=fit.slab, piece=fit.piece, ahead=fit.ahead)


class Fit(NamedTuple):
    """What fits in some memory: see `MatrixPlan`; `need` are the bytes that it takes there."""

    slab: int
    piece: int
    ahead: bool
    need: int


def fitted(
    plan: MatrixPlan, budget: Budget, work: Callable[[int], int], sides: Sequence[int]
) -> Fit:
    """Return the largest slabs and pieces of a matrix that fit in memory.

    Parameters
    ----------
    plan
        Says the shape, and the tile.
    budget
        The memory, and the bytes of a row.
    work
        Returns the bytes that scoring a piece with so many rows on either side takes.
    sides
        Rows on either side of a piece, largest first; the first that leaves enough memory for rows
        is taken.

    Raises
    ------
    UsageError
        The memory is too small for any; the message gives the minimum.
    """
    tile, longest = plan.tile, max(plan.rows, plan.columns or 0)
    for side in sides:
        piece = max(tile, min(side, -(-longest // tile) * tile) // tile * tile)
        fitting = budget.rows(work(piece))
        if work(piece) <= budget.memory // _PIECE_SHARE and fitting >= 2 * tile:
            break
    count = plan.rows + (plan.columns or 0)
    slabs, ahead = 2, False
    if count <= fitting:
        slab = max(longest, 1)
    else:
        slabs, ahead = (3, True) if fitting // 3 >= tile else (2, False)
        slab = fitting // slabs // tile * tile
    if slab < 1:
        raise budget.too_small(budget.bytes(2 * tile, work(tile)))
    need = budget.bytes(min(count, slabs * slab), work(piece))
    return Fit(slab, min(piece, longest), ahead, need)


def work_of(block: int, row_bytes: int) -> Callable[[int], int]:
    """Return what tells the bytes that scoring a piece takes, by its rows on either side.

    These are its numbers, and panels of rows on each side.
    """
    panels = min(panels_together(block), -(-row_bytes // (2 * PANEL * THREADS)))  # 2 bytes at least
    return lambda piece: piece * (piece * _PAIR_BYTES + 2 * panels * _PANEL_BYTES)


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
        except TooLittle as error:
            raise TooLittle(f"{error.message} for each worker", error.least) from error
        plan = replace(plan, slab=fitting.slab, piece=fitting.piece)
    parts = max(1, crew.workers()) * _PARTS_EACH
    longest = max(plan.rows, plan.columns or 0)
    side = math.ceil(math.sqrt(plan.rows * (plan.columns or plan.rows) / parts) / plan.tile)
    most = max(plan.tile, min(plan.slab, plan.piece) // plan.tile * plan.tile)
    side = min(side * plan.tile, most, longest)
    return replace(plan, slab=side, piece=side, ahead=False)
