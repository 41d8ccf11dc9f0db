"""Score a matrix by its plan: pieces are tasks; threads read rows ahead and write tiles."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..common.device import Ready
from ..common.fitting import until_it_fits
from ..common.progress import Report, silent
from ..common.tasks import Task, completed
from ..distances.distances import block_of, gram_distances
from ..distances.panels import Columns
from ..distances.scoring import Scoring, begin_all, ready_of, task_of
from ..features.features import Features
from .placing import RESULTS, Placing, placed
from .plan import MatrixPlan, Slab, shared
from .rows import PlacedRows

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
    report("tiles", len(tiles) * len(targets) - count, len(tiles) * len(targets))
    if count:
        work = _Work(features, down, across, targets, plan, todo, report, fast)
        until_it_fits(features.device, features.room(), work.planned, work.score)
    return count


class _Piece(NamedTuple):
    """A piece of a matrix: its rows and columns, the number of its target, its missing tiles."""

    top: slice
    left: slice
    which: int
    tiles: list[tuple[int, int]]


@dataclass(frozen=True)
class _Work:
    """What `score_matrices` was given, and the tiles of each matrix that are still to be written.

    `todo` shrinks as tiles are written, so that the work can begin again at any time.
    """

    features: Features
    down: Sequence[bytes]
    across: Sequence[bytes] | None
    targets: Sequence[MatrixTarget]
    plan: MatrixPlan
    todo: list[set[tuple[int, int]]]
    report: Report
    fast: bool

    def planned(self, room: int | None) -> tuple[Placing, int]:
        """Plan for `room` bytes of the device, or of each worker; return also what that takes."""
        row_bytes, crew = self.features.extractor.spec.row_bytes, self.features.crew
        if crew.elsewhere:
            placing = placed(shared(self.plan, row_bytes, crew.within(room)), row_bytes, None)
        else:
            placing = placed(self.plan, row_bytes, room, self.features.extractor.device)
        return placing, placing.need

    def score(self, placing: Placing) -> None:
        """Score and write the tiles that are left."""
        features = self.features
        total = len(self.plan.tiles()) * len(self.targets)
        rows = PlacedRows(features, self._contents, placing)
        most = 1 if features.device.local else RESULTS
        with rows.reading(), _writing_behind(most) as write:
            scored = completed(
                features.crew,
                self._tasks(placing, rows),
                lambda: features.clock("score"),
                mend=features.mend,
            )
            for piece, distances in scored:
                write(partial(self._write, piece, ready_of(distances)), len(piece.tiles))
                del distances
                self.report("tiles", total - sum(map(len, self.todo)), total)
        self.report("tiles", total, total)

    def _contents(self, slab: Slab) -> Sequence[bytes]:
        whole = self.across if slab.across and self.across is not None else self.down
        return whole[slab.rows]

    def _tasks(self, placing: Placing, rows: PlacedRows) -> Iterator[Task[_Piece]]:
        features, plan = self.features, placing.plan
        spec, where = features.extractor.spec, features.extractor.device
        centre = features.centre([*self.down, *(self.across or ())])
        scorings = [
            Scoring(Columns.of(target.weights, spec.dtype, where), centre, plan.block, self.fast)
            for target in self.targets
        ]
        for step, one, other in rows.steps(set().union(*self.todo)):
            for (top, left), which in product(plan.pieces(step), range(len(scorings))):
                here = [tile for tile in plan.tiles_in(top, left) if tile in self.todo[which]]
                if here:
                    mirrored = plan.columns is None and top == left
                    sides = (
                        one[_within(top, step.down)],
                        None if mirrored else other[_within(left, step.across)],
                    )
                    label = _Piece(top, left, which, here)
                    yield task_of(features.crew, label, begin_all, *sides, scorings[which])
                    del sides
            del one, other  # freed before the next are loaded

    def _write(self, piece: _Piece, ready: Ready) -> None:
        """Wait for the distances of a piece, and write its tiles."""
        with self.features.clock("score"):
            distances = ready()
        for tile in piece.tiles:
            row, column = tile[0] * self.plan.tile, tile[1] * self.plan.tile
            part = distances[row - piece.top.start :, column - piece.left.start :]
            with self.features.clock("write"):
                matrix = self.targets[piece.which].matrix
                matrix.write(*tile, part[: self.plan.tile, : self.plan.tile])
            self.todo[piece.which].discard(tile)


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
def _writing_behind(most: int) -> Iterator[Callable[[Callable[[], None], int], None]]:
    """Provide a function that queues work for a writer thread; all of it is done on exit.

    The work on a piece comes with its number of tiles. `most` pieces may wait, and more if they are
    small.
    """
    waiting: deque[tuple[Future[None], int]] = deque()

    def submit(work: Callable[[], None], tiles: int) -> None:
        waiting.append((thread.submit(work), tiles))
        while waiting and (waiting[0][0].done() or too_many()):
            waiting.popleft()[0].result()  # raises the writer's error

    def too_many() -> bool:
        return len(waiting) > most and sum(tiles for _, tiles in waiting) > _MOST_WAITING

    with ThreadPoolExecutor(1, "lpipstore-tiles") as thread:
        yield submit
        for future, _ in waiting:
            future.result()


def _within(part: slice, slab: Slab) -> slice:
    return slice(part.start - slab.start, part.stop - slab.start)
