"""Score listed pairs from rows: products of blocks with many pairs, differences elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..common.progress import Report, silent
from ..distances.direct import direct_distances
from ..distances.distances import gram_distances
from ..distances.panels import Columns
from ..features.features import Features
from .plan import ListPlan
from .schedule import Room, RowSet, Step, steps

_DIRECT_AT_ONCE = 8192  # pairs: about a second of work


class Distances(Protocol):
    """Destination of distances: memory, or `lpipstore.pipeline.pairlists.file.DistanceFile`."""

    values: NDArray[np.float32]
    """One number for each of the plan's pairs; NaN where it is not yet known."""

    def put(self, pairs: NDArray[np.int64], distances: NDArray[np.float32]) -> None:
        """Set the distances of some pairs."""


@dataclass
class InMemory:
    """Distances kept in memory only."""

    values: NDArray[np.float32]

    def put(self, pairs: NDArray[np.int64], distances: NDArray[np.float32]) -> None:
        """Set the distances of some pairs."""
        self.values[pairs] = distances


class Target(NamedTuple):
    """The column weights of a head, float32 [length], and the destination of its distances."""

    weights: NDArray[np.float32]
    distances: Distances


@dataclass(frozen=True)
class _Loaded:
    """Stored rows [n, length], and the rows of the plan that they are."""

    which: RowSet
    rows: torch.Tensor


def score_list(
    features: Features,
    contents: Sequence[bytes],
    weights: NDArray[np.float32],
    plan: ListPlan,
    room: Room,
    distances: Distances,
    report: Report = silent,
    *,
    fast: bool = False,
) -> None:
    """Score the pairs of a plan under one head; see `score_lists`."""
    target = Target(weights, distances)
    score_lists(features, contents, [target], plan, room, report, fast=fast)


def score_lists(
    features: Features,
    contents: Sequence[bytes],
    targets: Sequence[Target],
    plan: ListPlan,
    room: Room,
    report: Report = silent,
    *,
    fast: bool = False,
) -> None:
    """Score all pairs of a plan whose distance is not yet known; all heads share one read of rows.

    Parameters
    ----------
    features
        Source of the rows.
    contents
        Content hash of each image that the plan was made for.
    targets
        The heads, and the destinations of their distances. The absolute error is about 1e-7; under
        `lpipstore.pipeline.distances.distances.DIRECT_BELOW` the relative error is about 1e-6.
    plan, room
        What to score, and what fits in memory.
    fast
        As for `lpipstore.pipeline.distances.distances.gram_distances`.
    """
    unknown = np.stack([np.isnan(target.distances.values) for target in targets])
    total, done = unknown.size, int((~unknown).sum())
    report("pairs", done, total)
    todo = np.flatnonzero(unknown.any(0))
    if not len(todo):
        return
    device, spec = features.extractor.device, features.extractor.spec

    def load(which: RowSet) -> _Loaded:
        return _Loaded(which, features.load([contents[n] for n in plan.rows[which.rows]]))

    centre = features.centre([contents[n] for n in plan.rows])
    scorers = [
        _Scorer(plan, room, Columns.of(target.weights, spec.dtype, device), centre, fast)
        for target in targets
    ]
    left: _Loaded | None = None
    for step in steps(plan, todo, room):
        if left is None or left.which is not step.left:
            left = None  # frees these rows before the next are loaded
            left = load(step.left)
        right = None if step.right is None else load(step.right)
        for target, scorer, wanted in zip(targets, scorers, unknown, strict=True):
            mine = replace(step, pairs=step.pairs[wanted[step.pairs]])
            for pairs, numbers in scorer.score(mine, left, right, features):
                target.distances.put(pairs, numbers)
                done += len(pairs)
                report("pairs", done, total)
        right = None


def fast_list_error(
    features: Features, contents: Sequence[bytes], weights: NDArray[np.float32], plan: ListPlan
) -> float:
    """Return the largest difference that ``fast`` makes among the pairs of a plan's first product.

    0 for a plan without products: single pairs are computed from differences.
    """
    dense = np.flatnonzero(plan.dense)
    if not len(dense):
        return 0.0
    cell = dense[0]
    starts = plan.cells[cell] * plan.block
    sides = [plan.rows[start : start + plan.block] for start in np.unique(starts)]
    rows = [features.load([contents[n] for n in side]) for side in sides]
    columns = Columns.of(weights, features.extractor.spec.dtype, rows[0].device)
    centre = features.centre([contents[n] for n in plan.rows])
    other = rows[1] if len(rows) > 1 else None
    fast, exact = (
        gram_distances(rows[0], other, columns, centre, plan.block, fast=fast)
        for fast in (True, False)
    )
    places = torch.from_numpy(plan.pairs[plan.cell_of == cell] - starts).to(fast.device)
    return float((fast - exact)[places[:, 0], places[:, 1]].abs().max())


@dataclass(frozen=True)
class _Scorer:
    plan: ListPlan
    room: Room
    columns: Columns
    centre: torch.Tensor
    fast: bool

    def score(
        self, step: Step, left: _Loaded, right: _Loaded | None, features: Features
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield pairs of the step with their distances, part by part."""
        other = left if right is None else right
        first = left.which.places(self.plan.pairs[step.pairs, 0])
        second = other.which.places(self.plan.pairs[step.pairs, 1])
        dense = self.plan.dense[self.plan.cell_of[step.pairs]]
        for part, top, across in self._products(step, left, right, np.flatnonzero(dense)):
            with features.clock("score"):
                matrix = self._product(left, right, top, across)
                rows = torch.from_numpy(first[part] - top.start).to(matrix.device)
                columns = torch.from_numpy(second[part] - (across or top).start).to(matrix.device)
                numbers = matrix[rows, columns].to(torch.float32).cpu().numpy()
            yield step.pairs[part], numbers
        single = np.flatnonzero(~dense)
        for start in range(0, len(single), _DIRECT_AT_ONCE):
            part = single[start : start + _DIRECT_AT_ONCE]
            with features.clock("score"):
                ends = torch.from_numpy(np.stack([first[part], second[part]], axis=1))
                ends = ends.to(left.rows.device)
                exact = direct_distances(left.rows, other.rows, ends, self.columns)
                numbers = exact.to(torch.float32).cpu().numpy()
            yield step.pairs[part], numbers

    def _products(
        self, step: Step, left: _Loaded, right: _Loaded | None, dense: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], slice, slice | None]]:
        """Yield products: the pairs of the step that each serves, and its rows in the buffers.

        The last item is None for a product of left rows with themselves.
        """
        if not len(dense):
            return
        cells, cell_of = np.unique(self.plan.cell_of[step.pairs[dense]], return_inverse=True)
        ends = np.searchsorted(cell_of, np.arange(len(cells) + 1))  # pairs are sorted by cell
        other = left if right is None else right
        places = np.stack(
            [
                np.searchsorted(left.which.blocks, self.plan.cells[cells, 0]),
                np.searchsorted(other.which.blocks, self.plan.cells[cells, 1]),
            ],
            axis=1,
        )
        for product in cover(places, self.room.blocks, mirrored=right is None):
            part = np.concatenate([dense[ends[cell] : ends[cell + 1]] for cell in product.cells])
            top = self._rows(product.top, left)
            yield part, top, product.across and self._rows(product.across, other)

    def _rows(self, blocks: slice, loaded: _Loaded) -> slice:
        stop = min(blocks.stop * self.plan.block, loaded.which.whole)
        return slice(blocks.start * self.plan.block, stop)

    def _product(
        self, left: _Loaded, right: _Loaded | None, top: slice, across: slice | None
    ) -> torch.Tensor:
        others = None if across is None else (right or left).rows[across]
        return gram_distances(
            left.rows[top], others, self.columns, self.centre, self.plan.block, fast=self.fast
        )


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
