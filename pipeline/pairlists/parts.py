"""Cut a step into parts: pairs that one product serves, or that are computed one by one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..common.device import Ready
from ..distances.scoring import Rows, Scoring, begin_by_product, begin_singly
from .plan import ListPlan
from .schedule import ListStep, Room, RowSet

_DIRECT_AT_ONCE = 8192  # pairs: about a second of work


@dataclass(frozen=True)
class Part:
    """Pairs that are scored together, and where the rows of a step hold them: plain data.

    Attributes
    ----------
    pairs
        Indices into the pairs of the plan.
    places
        int64 [p, 2]: their rows, counted from the first row of the product if there is one.
    top, across
        The rows of the product in the left and in the right rows of the step. `across` None means
        `top` with itself, `top` None that there is no product.
    """

    pairs: NDArray[np.int64]
    places: NDArray[np.int64]
    top: slice | None = None
    across: slice | None = None


def begin_part(left: Rows, right: Rows | None, part: Part, scoring: Scoring) -> Ready:
    """Begin to compute the distances of the pairs of a part, float32 [p], in any process.

    `left` and `right` are the rows of the step; `right` None means `left`.
    """
    if part.top is None:
        return begin_singly(left, right, part.places, scoring)
    others = None if part.across is None else (left if right is None else right)[part.across]
    return begin_by_product(left[part.top], others, part.places, scoring)


def needed_by(part: Part, left: Rows, right: Rows | None) -> tuple[Rows, Rows | None, Part]:
    """Return the rows of a step that a part needs, and the part as it lies in them.

    For parts that travel: no distance changes.
    """
    if part.top is not None:
        other = None if part.across is None else (left if right is None else right)[part.across]
        across = None if other is None else slice(len(other))
        one = left[part.top]
        return one, other, replace(part, top=slice(len(one)), across=across)
    if right is None:
        numbers, places = _numbered(part.places)
        return left[numbers], None, replace(part, places=places)
    (one, down), (two, along) = map(_numbered, part.places.T)
    return left[one], right[two], replace(part, places=np.stack([down, along], axis=1))


def _numbered(places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the different numbers among `places`, and places in those, of the same shape."""
    numbers, inverse = np.unique(places.reshape(-1), return_inverse=True)
    return numbers.astype(np.int64), inverse.reshape(places.shape)


def parts_of(plan: ListPlan, step: ListStep, room: Room) -> Iterator[Part]:
    """Cut a step into parts, products first."""
    other = step.right or step.left
    ends = plan.pairs[step.pairs]
    places = np.stack([step.left.places(ends[:, 0]), other.places(ends[:, 1])], axis=1)
    dense = plan.dense[plan.cell_of[step.pairs]]
    for which, top, across in _products(plan, step, room, np.flatnonzero(dense)):
        starts = top.start, (across or top).start
        yield Part(step.pairs[which], places[which] - starts, top, across)
    single = np.flatnonzero(~dense)
    for start in range(0, len(single), _DIRECT_AT_ONCE):
        which = single[start : start + _DIRECT_AT_ONCE]
        yield Part(step.pairs[which], places[which])


def _products(
    plan: ListPlan, step: ListStep, room: Room, dense: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], slice, slice | None]]:
    """Yield products: the pairs of the step that each serves, and its rows on either side.

    The last item is None for a product of left rows with themselves.
    """
    if not len(dense):
        return
    cells, cell_of = np.unique(plan.cell_of[step.pairs[dense]], return_inverse=True)
    ends = np.searchsorted(cell_of, np.arange(len(cells) + 1))  # pairs are sorted by cell
    other = step.right or step.left
    places = np.stack(
        [
            np.searchsorted(step.left.blocks, plan.cells[cells, 0]),
            np.searchsorted(other.blocks, plan.cells[cells, 1]),
        ],
        axis=1,
    )
    for product in cover(places, room.blocks, mirrored=step.right is None):
        which = np.concatenate([dense[ends[cell] : ends[cell + 1]] for cell in product.cells])
        across = product.across and _rows(plan, product.across, other)
        yield which, _rows(plan, product.top, step.left), across


def _rows(plan: ListPlan, blocks: slice, rows: RowSet) -> slice:
    return slice(blocks.start * plan.block, min(blocks.stop * plan.block, rows.whole))


@dataclass(frozen=True)
class Product:
    """One call of `gram_distances`: ranges of blocks, and the wanted candidate blocks in them.

    `across` None means `top` with itself.
    """

    top: slice
    across: slice | None
    cells: list[int]


def cover(places: NDArray[np.int64], side: int, *, mirrored: bool) -> Iterator[Product]:
    """Cover candidate blocks with products; `places` [n, 2] locates them in two block buffers.

    A product spans at most `side` blocks on either side, and includes unwanted candidate blocks
    where that saves converting rows again. With `mirrored`, both buffers are the same and no
    candidate block lies below the diagonal.
    """
    squares, square_of, counts = np.unique(
        places // side, axis=0, return_inverse=True, return_counts=True
    )
    by_square = np.split(np.argsort(square_of.reshape(-1), kind="stable"), np.cumsum(counts)[:-1])
    for (row, column), members in zip(squares.tolist(), by_square, strict=True):
        here = places[members]
        low, high = here.min(0), here.max(0) + 1
        if mirrored and row == column:
            start, stop = int(low.min()), int(high.max())
            if 2 * len(members) >= (stop - start) * (stop - start + 1) // 2:
                yield Product(slice(start, stop), None, members.tolist())
                continue
        elif 2 * len(members) >= (high - low).prod():
            top, across = (slice(*map(int, edge)) for edge in zip(low, high, strict=True))
            yield Product(top, across, members.tolist())
            continue
        for place, cell in zip(here.tolist(), members.tolist(), strict=True):
            top, across = slice(place[0], place[0] + 1), slice(place[1], place[1] + 1)
            yield Product(top, None if mirrored and top == across else across, [cell])
