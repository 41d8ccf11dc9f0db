"""Zarr arrays of a run: written chunk by chunk, each renamed into place when complete."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, setting
from ..common.text import printable
from .files import DISTANCES, contents_digest


def open_array(
    path: Path,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    attributes: Mapping[str, Any],
    names: tuple[str, ...] | None = None,
) -> Any:  # noqa: ANN401 - zarr's own class is generic
    """Create a float32 array filled with NaN, or open the array of an unfinished run.

    Raises
    ------
    LpipstoreError
        The existing array has another shape, chunks or attributes, or is damaged.
    """
    import zarr

    if not (path / "zarr.json").exists():
        return zarr.create_array(
            path,
            shape=shape,
            chunks=chunks,
            dtype="float32",
            fill_value=float("nan"),
            compressors=None,
            dimension_names=names,
            attributes=dict(attributes),
            config={"write_empty_chunks": True},
        )
    try:
        array = zarr.open_array(path, mode="r+", config={"write_empty_chunks": True})
    except (ValueError, KeyError, TypeError) as error:
        raise LpipstoreError(
            f"{printable(str(path))} is damaged ({error}): remove it and give the same command "
            "again"
        ) from error
    if array.shape != shape or array.chunks != chunks or dict(array.attrs) != dict(attributes):
        raise LpipstoreError(
            f"{printable(str(path))} was begun with other images: files that could not be read "
            f"then can be now, or the other way round; choose another folder for {setting('out')}"
        )
    return array


def chunk_is_whole(path: Path, array: Any, *chunk: int) -> bool:  # noqa: ANN401 - as above
    """Return whether a chunk is complete; a power loss can leave a short file under its name."""
    whole: int = array.dtype.itemsize * math.prod(array.chunks)
    try:
        return path.joinpath("c", *map(str, chunk)).stat().st_size == whole
    except FileNotFoundError:
        return False


class MatrixFile:
    """``distances.zarr``: a float32 matrix, written tile by tile.

    A tile is a chunk, and a chunk is renamed into place when complete, so every tile that exists is
    done. Opening an existing matrix continues it.

    Parameters
    ----------
    folder
        The run's folder.
    down, across
        Content hash of each image, in the order of the rows and of the columns. If `across` is
        None, it is `down`: the matrix is symmetric, and each tile is written with its mirror.
    tile
        Rows and columns of a tile.
    attributes
        Metadata of the distances, stored with the array.

    Raises
    ------
    LpipstoreError
        The existing matrix is of other images or tiles, or is damaged.
    """

    def __init__(
        self,
        folder: Path,
        down: Sequence[bytes],
        across: Sequence[bytes] | None,
        tile: int,
        attributes: Mapping[str, Any],
    ) -> None:
        self.path = folder / DISTANCES
        self.tile = tile
        self.symmetric = across is None
        columns = down if across is None else across
        shape = len(down), len(columns)
        chunk = min(tile, shape[0]), min(tile, shape[1])
        contents = contents_digest([*down, *(across or ())])
        attributes = {**attributes, "contents": contents}
        self.array = open_array(self.path, shape, chunk, attributes, ("i", "j"))

    def done(self, row: int, column: int) -> bool:
        """Return whether the tile (row, column), counted in tiles, and its mirror are written."""
        places = {(row, column), (column, row)} if self.symmetric else {(row, column)}
        return all(chunk_is_whole(self.path, self.array, *place) for place in places)

    def write(self, row: int, column: int, distances: NDArray[np.float32]) -> None:
        """Write one tile and its mirror, if it has one."""
        rows = slice(row * self.tile, row * self.tile + distances.shape[0])
        columns = slice(column * self.tile, column * self.tile + distances.shape[1])
        self.array[rows, columns] = distances
        if self.symmetric and row != column:
            self.array[columns, rows] = distances.T

    def band(self, start: int, stop: int) -> NDArray[np.float32]:
        """Read rows of the matrix, for the functions of `lpipstore.pipeline.matrix.summary`."""
        return np.asarray(self.array[start:stop])
