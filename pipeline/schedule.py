"""In which pieces a matrix is scored: tiles of the result, slabs of rows that fit in memory."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..cache.errors import UsageError
from .distances import Columns, block_of, centre_of, gram_distances
from .features import Features
from .progress import Report, silent
from .results import MatrixFile

_TILES = (256, 128, 64, 32, 16)
_PANEL_BYTES = 4 * 4096  # of one row, converted, on either side of a product
_PAIR_BYTES = 24  # of one pair in a slab: float64 sums, distances and their mirror
_CENTRE_ROWS = 16


@dataclass(frozen=True)
class MatrixPlan:
    """How the matrix of `count` images is cut.

    `tile` rows make a tile of the result, `slab` rows (a multiple of `tile`) are in memory at a
    time on either side, products have `block` rows on either side.
    """

    count: int
    tile: int
    slab: int
    block: int

    def tiles(self) -> list[tuple[int, int]]:
        """List the tiles on and above the diagonal, as (row, column) counted in tiles."""
        along = -(-self.count // self.tile)
        return [(i, j) for i in range(along) for j in range(i, along)]

    def slabs(self) -> Iterator[tuple[slice, slice]]:
        """Yield the pairs of slabs on and above the diagonal, in an order that reuses the left."""
        starts = range(0, self.count, self.slab)
        for top in starts:
            for left in starts:
                if left >= top:
                    yield slice(top, top + self.slab), slice(left, left + self.slab)


class Matrix(Protocol):
    """Where tiles go: a file (`MatrixFile`) or memory."""

    def done(self, row: int, column: int) -> bool:
        """Tell whether the tile and its mirror are there already."""

    def write(self, row: int, column: int, distances: NDArray[np.float32]) -> None:
        """Put one tile and its mirror in place."""


def plan_matrix(count: int, row_bytes: int, memory: int) -> MatrixPlan:
    """Plan the matrix of `count` rows of `row_bytes` each within `memory` bytes.

    Raises
    ------
    UsageError
        Not even a few rows fit; the message says how much would.
    """
    per_row = row_bytes + _PANEL_BYTES
    if count * per_row + count * count * _PAIR_BYTES <= memory:
        tile = min(_TILES[0], count)
        return MatrixPlan(count, tile, count, block_of(count))
    for tile in _TILES:
        slab = tile
        while 2 * (slab + tile) * per_row + (slab + tile) ** 2 * _PAIR_BYTES <= memory:
            slab += tile
        if 2 * slab * per_row + slab * slab * _PAIR_BYTES <= memory:
            return MatrixPlan(count, min(tile, count), slab, min(tile, block_of(count)))
    least = _TILES[-1]
    need = (2 * least * per_row + least * least * _PAIR_BYTES) / 1e6
    raise UsageError(
        f"--memory is too small for rows of {row_bytes / 1e6:.3g} MB: it takes {math.ceil(need)}MB "
        "at least"
    )


def score_matrix(
    features: Features,
    contents: Sequence[bytes],
    weights: NDArray[np.float32],
    plan: MatrixPlan,
    matrix: Matrix,
    report: Report = silent,
) -> int:
    """Score every pair of a collection from its rows, and write the tiles that are not there yet.

    Parameters
    ----------
    features
        Where rows come from.
    contents
        Content hash of each image; image k is row and column k of the matrix.
    weights
        Column weights of the head, float32 [length].

    Returns
    -------
    int
        Tiles that were written; those that were there already are left as they are.
    """
    tiles = plan.tiles()
    todo = {tile for tile in tiles if not matrix.done(*tile)}
    report("tiles", len(tiles) - len(todo), len(tiles))
    if not todo:
        return 0
    clock, spec, device = features.clock, features.extractor.spec, features.extractor.device

    def load(which: Sequence[bytes]) -> torch.Tensor:
        rows = np.empty((len(which), spec.length), spec.dtype)
        features.read(which, rows)
        return torch.from_numpy(rows).to(device)

    columns = Columns.of(weights, spec.dtype, device)
    # Chosen by key: the centre, and with it every bit, does not depend on the images' order.
    centre = centre_of(load(sorted(set(contents), key=features.key)[:_CENTRE_ROWS]))
    written = 0
    left: torch.Tensor | None = None
    right: torch.Tensor | None = None
    left_of = None
    for top, across in plan.slabs():
        here = [tile for tile in _tiles_within(plan, top, across) if tile in todo]
        if not here:
            continue
        right = None  # two slabs have room: let go of one before the next comes
        if left is None or left_of != top:
            left = None
            left, left_of = load(contents[top]), top
        if across != top:
            right = load(contents[across])
        with clock("score"):
            distances = gram_distances(left, right, columns, centre, plan.block)
            numbers: NDArray[np.float32] = distances.to(torch.float32).cpu().numpy()
        with clock("write"):
            for row, column in here:
                matrix.write(row, column, _cut(numbers, plan, (row, column), top, across))
                written += 1
                report("tiles", len(tiles) - len(todo) + written, len(tiles))
    return written


def _tiles_within(plan: MatrixPlan, top: slice, across: slice) -> Iterator[tuple[int, int]]:
    for row in range(top.start // plan.tile, -(-min(top.stop, plan.count) // plan.tile)):
        for column in range(
            across.start // plan.tile, -(-min(across.stop, plan.count) // plan.tile)
        ):
            if column >= row:
                yield row, column


def _cut(
    numbers: NDArray[np.float32],
    plan: MatrixPlan,
    tile: tuple[int, int],
    top: slice,
    across: slice,
) -> NDArray[np.float32]:
    row, column = (place * plan.tile for place in tile)
    down = slice(row - top.start, row - top.start + plan.tile)
    right = slice(column - across.start, column - across.start + plan.tile)
    return numbers[down, right]


def band_reader(matrix: MatrixFile) -> Callable[[int, int], NDArray[np.float32]]:
    """Return a function that reads rows of the matrix, for `pair_summary`."""

    def band(start: int, stop: int) -> NDArray[np.float32]:
        return np.asarray(matrix.array[start:stop])

    return band
