"""Schedule a list of pairs: which rows are in memory together, and which pairs are scored then.

The schedule changes only how often a row is read, never a bit of a distance.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..common.budget import Budget
from .plan import ListPlan

_PANEL_BYTES = 4 * 4096  # of one converted row on either side of a product or a difference
_PAIR_BYTES = 24  # of one pair in a product: float64 sums, distances and their mirror
_MOST_BLOCKS = 8  # along a product: rows are converted once for all of them
_MOST_BLOCKS_ON_DEVICE = 32  # where few large calls pay
_STREAMED_SHARE = 8  # one part in so many of the room is for streamed rows


@dataclass(frozen=True)
class Room:
    """What fits in memory: `rows` rows at a time, and products of `blocks` blocks on each side.

    With `ahead`, rows that are streamed leave memory for the next ones.
    """

    rows: int
    blocks: int
    ahead: bool = False


def room_for(memory: int, row_bytes: int, block: int) -> Room:
    """Return what fits in `memory` bytes beside the arithmetic.

    Raises
    ------
    UsageError
        `memory` is too small for two blocks; the message gives the minimum.
    """
    return _fitted(Budget(memory, row_bytes, _PANEL_BYTES), block, _MOST_BLOCKS)


def room_on_device(memory: int, row_bytes: int, block: int) -> Room:
    """Return what fits in `memory` bytes of a device; raises as `room_for` does."""
    budget = Budget(memory, row_bytes, _PANEL_BYTES, "device_memory")
    room = _fitted(budget, block, _MOST_BLOCKS_ON_DEVICE)
    return replace(room, ahead=room.rows >= 3 * block)


def bytes_of(room: Room, rows: int, row_bytes: int, block: int) -> int:
    """Return the bytes that a list of so many rows takes in a room."""
    budget = Budget(0, row_bytes, _PANEL_BYTES)
    return budget.bytes(min(rows, room.rows), _product_bytes(room.blocks * block))


def _fitted(budget: Budget, block: int, most: int) -> Room:
    least = budget.bytes(2 * block, _product_bytes(block))
    if budget.memory < least:
        raise budget.too_small(least)
    blocks = 1
    while blocks < most:
        product = _product_bytes((blocks + 1) * block)
        if product > budget.memory // 8 or budget.rows(product) < 2 * block:
            break
        blocks += 1
    return Room(budget.rows(_product_bytes(blocks * block)), blocks)


def _product_bytes(side: int) -> int:
    """Return the bytes that a product of so many rows on either side takes."""
    return side**2 * _PAIR_BYTES


@dataclass(frozen=True, eq=False)
class RowSet:
    """Rows that are in memory together.

    `rows` holds row numbers of the plan, in buffer order. The first `whole` of them make up whole
    blocks, whose numbers are in `blocks`; the others are single rows.
    """

    rows: NDArray[np.int64]
    whole: int
    blocks: NDArray[np.int64]

    def places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the buffer positions of rows of the plan."""
        order = np.argsort(self.rows)
        return np.asarray(order[np.searchsorted(self.rows, rows, sorter=order)])


@dataclass(frozen=True)
class ListStep:
    """Pairs (ascending indices into the plan's `pairs`) whose rows are in memory together.

    The first row of each pair is in `left`, the second in `right`; `right` None means `left`.
    """

    left: RowSet
    right: RowSet | None
    pairs: NDArray[np.int64]

    @property
    def sides(self) -> tuple[RowSet, ...]:
        """The sets of rows that are in memory together."""
        return (self.left,) if self.right is None else (self.left, self.right)


def steps(plan: ListPlan, todo: NDArray[np.int64], room: Room) -> Iterator[ListStep]:
    """Yield the pairs `todo` (ascending) in steps that read rows as few times as memory allows.

    Each row is read once if all fit. Otherwise as many blocks as fit stay in memory while the rows
    that they are paired with are streamed; then the next blocks follow. Steps with the same `left`
    are consecutive.
    """
    blocks = plan.cells[plan.cell_of]
    start = 0
    while len(todo):
        stop = _stop(plan, todo, start, room)
        mine = todo[blocks[todo, 0] < stop]
        todo = todo[blocks[todo, 0] >= stop]
        inside = blocks[mine, 1] < stop
        staying = plan.pairs[mine, 0], plan.pairs[mine[inside], 1]
        left = _gather(plan, mine, np.concatenate(staying))
        if inside.any():
            yield ListStep(left, None, mine[inside])
        streamed = (room.rows - len(left.rows)) // (2 if room.ahead else 1)
        for passing in _passing(plan, mine[~inside], streamed):
            yield ListStep(left, _gather(plan, passing, plan.pairs[passing, 1]), passing)
        start = stop


def loads(plan: ListPlan, todo: NDArray[np.int64], room: Room) -> Iterator[RowSet]:
    """Yield the sets of rows in the order in which `steps` needs them loaded."""
    held: tuple[RowSet, ...] = ()
    for step in steps(plan, todo, room):
        yield from (rows for rows in step.sides if rows not in held)
        held = step.sides


def _stop(plan: ListPlan, todo: NDArray[np.int64], start: int, room: Room) -> int:
    """Return the end of the range of blocks, from `start` on, that fit and stay in memory."""
    needed = _rows_by_block(plan, todo, plan.pairs[todo])
    held = np.cumsum(needed[start:])
    if held[-1] <= room.rows:
        return len(needed)
    passing = max(plan.block, room.rows // _STREAMED_SHARE) * (2 if room.ahead else 1)
    return start + max(1, int(np.searchsorted(held, room.rows - passing, side="right")))


def _passing(plan: ListPlan, pairs: NDArray[np.int64], rows: int) -> Iterator[NDArray[np.int64]]:
    """Split pairs by the blocks of their second rows, so that each part needs at most `rows`."""
    if not len(pairs):
        return
    held = np.cumsum(_rows_by_block(plan, pairs, plan.pairs[pairs, 1]))
    second = plan.pairs[pairs, 1] // plan.block
    start = 0
    while start < len(held):
        before = held[start - 1] if start else 0
        stop = int(np.searchsorted(held, before + rows, side="right"))
        part = pairs[(second >= start) & (second < stop)]
        if len(part):
            yield part
        start = stop


def _dense_blocks(plan: ListPlan, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    cells = np.unique(plan.cell_of[pairs])
    return np.unique(plan.cells[cells[plan.dense[cells]]])


def _rows_by_block(
    plan: ListPlan, pairs: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count the rows that `_gather` would take from each block."""
    along = -(-len(plan.rows) // plan.block)
    counts = np.bincount(np.unique(ends) // plan.block, minlength=along)
    dense = _dense_blocks(plan, pairs)
    dense = dense[counts[dense] > 0]
    counts[dense] = np.minimum(plan.block, len(plan.rows) - dense * plan.block)
    return counts


def _gather(plan: ListPlan, pairs: NDArray[np.int64], ends: NDArray[np.int64]) -> RowSet:
    """Collect the rows `ends` of `pairs`, as whole blocks where a product needs them."""
    used = np.unique(ends)
    blocks = np.intersect1d(_dense_blocks(plan, pairs), used // plan.block)
    whole = (blocks[:, None] * plan.block + np.arange(plan.block)).ravel()
    whole = whole[whole < len(plan.rows)]
    loose = used[~np.isin(used // plan.block, blocks)]
    return RowSet(np.concatenate([whole, loose]), len(whole), blocks)
