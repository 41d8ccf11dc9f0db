"""Score a matrix by its plan: pieces are tasks; threads read rows ahead and write tiles."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product, zip_longest
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..common.progress import Report, silent
from ..common.tasks import Task, completed
from ..distances.distances import block_of, gram_distances
from ..distances.panels import Columns
from ..distances.scoring import Rows, Scoring, score_all
from ..features.features import Features
from ..features.held import HeldRows
from .plan import MatrixPlan, MatrixStep, Slab, shared

_MOST_WAITING = 16  # tiles that may wait to be written


class Matrix(Protocol):
    """Destination of tiles: a file (`lpipstore.pipeline.runs.zarr_array.MatrixFile`) or memory."""

    def done(self, row: int, column: int) -> bool:
        """Return whether the tile, and its mirror if it has one, are already written."""

    def write(self, row: int, column: int, distances: NDArray[np.float32]) -> None:
        """Write one tile, and its mirror if it has one."""


class MatrixTarget(NamedTuple):
    """A matrix to score: the column weights of its head, float32 [length], and its destination."""

    weights: NDArray[np.float32]
    matrix: Matrix


def score_matrix(
    features: Features,
    down: Sequence[bytes],
    across: Sequence[bytes] | None,
    weights: NDArray[np.float32],
    plan: MatrixPlan,
    matrix: Matrix,
    report: Report = silent,
    *,
    fast: bool = False,
) -> int:
    """Score one matrix; return the number of tiles written. See `score_matrices`."""
    target = MatrixTarget(weights, matrix)
    return score_matrices(features, down, across, [target], plan, report, fast=fast)


def score_matrices(
    features: Features,
    down: Sequence[bytes],
    across: Sequence[bytes] | None,
    targets: Sequence[MatrixTarget],
    plan: MatrixPlan,
    report: Report = silent,
    *,
    fast: bool = False,
) -> int:
    """Score matrices from the rows of their images; write the tiles that are missing.

    Rows are read once for all matrices.

    Parameters
    ----------
    features
        Source of the rows.
    down, across
        Content hashes of the images of the rows and of the columns. `across` None means all pairs
        of `down`.
    targets
        The matrices, one per head.
    fast
        As for `lpipstore.pipeline.distances.distances.gram_distances`.

    Returns
    -------
    int
        Number of tiles written; those already there are left as they are.
    """
    tiles = plan.tiles()
    todo = [{tile for tile in tiles if not target.matrix.done(*tile)} for target in targets]
    count = sum(map(len, todo))
    total = len(tiles) * len(targets)
    done = total - count
    report("tiles", done, total)
    if not count:
        return 0
    spec, device = features.extractor.spec, features.extractor.device
    centre = features.centre([*down, *(across or ())])
    scorings = [
        Scoring(Columns.of(target.weights, spec.dtype, device), centre, plan.block, fast)
        for target in targets
    ]
    plan = plan if not features.crew.elsewhere else shared(plan, spec.row_bytes, features.crew)
    somewhere = set().union(*todo)
    wanted = [step for step in plan.steps() if not somewhere.isdisjoint(_tiles_of(plan, step))]

    def contents(slab: Slab) -> Sequence[bytes]:
        return (across if slab.across and across is not None else down)[slab.rows]

    rows = HeldRows[Slab, Rows](
        lambda slab: features.supply(contents(slab)),
        (lambda slab: features.stored(contents(slab))) if plan.ahead else None,
    )

    def tasks() -> Iterator[Task[_Piece]]:
        for step, following in zip_longest(wanted, wanted[1:]):
            soon = () if following is None else (following.down, following.across)
            one, other = rows.get((step.down, step.across), soon)
            for (top, left), which in product(plan.pieces(step), range(len(targets))):
                here = [tile for tile in _tiles_in(plan, top, left) if tile in todo[which]]
                if here:
                    mirrored = plan.columns is None and top == left
                    sides = (
                        one[_within(top, step.down)],
                        None if mirrored else other[_within(left, step.across)],
                    )
                    label = _Piece(top, left, which, here)
                    yield Task(label, score_all, (*sides, scorings[which]))
                    del sides
            del one, other  # freed before the next are loaded

    with rows.reading(), _writing_behind(features) as write:
        scored = completed(
            features.crew, tasks(), lambda: features.clock("score"), mend=features.mend
        )
        for piece, distances in scored:
            for tile in piece.tiles:
                part = _cut(distances, plan, tile, piece.top, piece.left)
                write(targets[piece.which].matrix, tile, part)
                done += 1
                report("tiles", done, total)
            del distances, part
    return count


class _Piece(NamedTuple):
    """A piece of a matrix: its rows and columns, the number of its target, its missing tiles."""

    top: slice
    left: slice
    which: int
    tiles: list[tuple[int, int]]


def fast_error(
    features: Features, contents: Sequence[bytes], weights: NDArray[np.float32]
) -> float:
    """Return the largest difference that ``fast`` makes among the first images of a collection."""
    row_bytes = features.extractor.spec.length * 4
    block = block_of(len(contents), row_bytes)
    rows, centre = features.load(contents[:block]), features.centre(contents)
    columns = Columns.of(weights, features.extractor.spec.dtype, rows.device)
    fast, exact = (
        gram_distances(rows, None, columns, centre, block, fast=fast) for fast in (True, False)
    )
    return float((fast - exact).abs().max())


@contextmanager
def _writing_behind(
    features: Features,
) -> Iterator[Callable[[Matrix, tuple[int, int], NDArray[np.float32]], None]]:
    """Provide a function that queues tiles for a writer thread; all are written on exit."""
    waiting: list[Future[None]] = []

    def write(matrix: Matrix, tile: tuple[int, int], distances: NDArray[np.float32]) -> None:
        with features.clock("write"):
            matrix.write(*tile, distances)

    def submit(matrix: Matrix, tile: tuple[int, int], distances: NDArray[np.float32]) -> None:
        waiting.append(thread.submit(write, matrix, tile, distances))
        while len(waiting) > _MOST_WAITING or (waiting and waiting[0].done()):
            waiting.pop(0).result()  # raises the writer's error

    with ThreadPoolExecutor(1, "lpipstore-tiles") as thread:
        yield submit
        for future in waiting:
            future.result()


def _tiles_of(plan: MatrixPlan, step: MatrixStep) -> set[tuple[int, int]]:
    return {tile for top, left in plan.pieces(step) for tile in _tiles_in(plan, top, left)}


def _tiles_in(plan: MatrixPlan, top: slice, left: slice) -> Iterator[tuple[int, int]]:
    for row in range(top.start // plan.tile, -(-top.stop // plan.tile)):
        for column in range(left.start // plan.tile, -(-left.stop // plan.tile)):
            if plan.columns is not None or column >= row:
                yield row, column


def _within(part: slice, slab: Slab) -> slice:
    return slice(part.start - slab.start, part.stop - slab.start)


def _cut(
    piece: NDArray[np.float32], plan: MatrixPlan, tile: tuple[int, int], top: slice, left: slice
) -> NDArray[np.float32]:
    row, column = tile[0] * plan.tile - top.start, tile[1] * plan.tile - left.start
    return piece[row : row + plan.tile, column : column + plan.tile]
