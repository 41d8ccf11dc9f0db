"""Assemble a matrix from the distances of an older run and newly computed ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError
from ..common.progress import Report, silent
from ..common.text import printable
from ..runs.files import DISTANCES
from ..runs.zarr_array import MatrixFile


@dataclass(frozen=True)
class Pieces:
    """Where the distances of a collection come from.

    Attributes
    ----------
    old
        The folder of the older run.
    among, against
        Zarr arrays of distances, in folders: among the new images, and from the new images (rows)
        to those of the older run (columns); None where there are none.
    places, numbers, columns
        int64 [images]: index of each image in the older matrix, among the new images, and along the
        columns of `against`; -1 where it has none.
    """

    old: Path
    among: Any
    against: Any
    places: NDArray[np.int64]
    numbers: NDArray[np.int64]
    columns: NDArray[np.int64]


def assemble(
    pieces: Pieces,
    matrix: MatrixFile,
    tiles: Sequence[tuple[int, int]],
    report: Report = silent,
) -> None:
    """Write tiles of a matrix of all pairs, copied from its pieces.

    Raises
    ------
    LpipstoreError
        The older matrix or a new one lacks some of its distances; the message names it.
    """
    import zarr

    old = zarr.open_array(pieces.old / DISTANCES, mode="r")
    count, size = len(pieces.places), matrix.tile
    for done, (row, column) in enumerate(tiles, 1):
        rows = np.arange(row * size, min((row + 1) * size, count))
        columns = np.arange(column * size, min((column + 1) * size, count))
        tile = _tile(pieces, old, rows, columns)
        matrix.write(row, column, tile)
        report("copied", done, len(tiles))


def _tile(
    pieces: Pieces,
    old: Any,  # noqa: ANN401 - zarr's own class is generic
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> NDArray[np.float32]:
    tile = np.full((len(rows), len(columns)), np.nan, np.float32)
    known_rows, known_columns = pieces.places[rows] >= 0, pieces.places[columns] >= 0
    tile[np.ix_(known_rows, known_columns)] = taken = _pick(
        old, pieces.places[rows[known_rows]], pieces.places[columns[known_columns]]
    )
    if np.isnan(taken).any():
        raise LpipstoreError(
            f"the matrix in {printable(str(pieces.old))} lacks distances: give the command "
            "that made it again, then this one"
        )
    new_rows, new_columns = ~known_rows, ~known_columns
    tile[np.ix_(new_rows, known_columns)] = _pick_new(
        pieces.against, pieces.numbers[rows[new_rows]], pieces.columns[columns[known_columns]]
    )
    tile[np.ix_(known_rows, new_columns)] = _pick_new(
        pieces.against, pieces.numbers[columns[new_columns]], pieces.columns[rows[known_rows]]
    ).T
    tile[np.ix_(new_rows, new_columns)] = _pick_new(
        pieces.among, pieces.numbers[rows[new_rows]], pieces.numbers[columns[new_columns]]
    )
    return tile


def _pick_new(
    array: Any,  # noqa: ANN401 - as above
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> NDArray[np.float32]:
    found = _pick(array, rows, columns)
    if np.isnan(found).any():
        raise LpipstoreError(
            f"the matrix of new distances in {printable(str(array.store.root))} lacks some: "
            "remove that folder and give the same command again"
        )
    return found


def _pick(
    array: Any,  # noqa: ANN401 - as above
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Read chosen rows and columns; indices may come in any order and repeat."""
    if not (len(rows) and len(columns)):
        return np.empty((len(rows), len(columns)), np.float32)
    down, where_down = np.unique(rows, return_inverse=True)
    across, where_across = np.unique(columns, return_inverse=True)
    found = np.asarray(array.oindex[down, across])
    return found[np.ix_(where_down, where_across)]
