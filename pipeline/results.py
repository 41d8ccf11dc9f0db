"""A run on disk: what was asked, which images, every distance, and the figures that sum it up."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ..cache.errors import LpipstoreError, UsageError
from .images import ImageRecord

if TYPE_CHECKING:
    import dask.array
    import pyarrow

FORMAT = 1
MANIFEST = "manifest.json"
IMAGES = "images.parquet"
DISTANCES = "distances.zarr"
SUMMARY = "summary.json"
# For people; what is the same run, the digests decide
_PROVENANCE = ("folder", "versions", "weights_origin")


def collection_digest(records: Sequence[ImageRecord]) -> str:
    """Return the xxh3-128 over the paths and contents of a collection, in order (hex)."""
    digest = xxhash.xxh3_128()
    for record in records:
        digest.update(os.fsencode(record.path) + b"\0" + (record.content or b"unreadable"))
    return digest.hexdigest()


def start_run(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Make the folder of a run and write its manifest, or recognise the same run to resume it.

    Raises
    ------
    UsageError
        The folder holds a different run (the message names what differs) or other files.
    LpipstoreError
        The folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = sorted(path.name for path in folder.iterdir())
        if MANIFEST in present:
            _refuse_another_run(folder, manifest)
        elif present:
            raise UsageError(
                f"{folder} is not empty and holds no run ({present[0]} is there): "
                "choose a new folder for --out"
            )
        else:
            write_json(folder / MANIFEST, manifest)
        for leftover in folder.rglob("*.partial"):  # of a run that was killed while it wrote
            leftover.unlink()
    except OSError as error:
        raise LpipstoreError(
            f"cannot write results to {folder}: {error.strerror}; choose another --out"
        ) from error


def _refuse_another_run(folder: Path, manifest: Mapping[str, Any]) -> None:
    old = read_json(folder / MANIFEST)
    different = [
        f"{name}: {old.get(name)!r} there, {manifest.get(name)!r} now"
        for name in dict.fromkeys((*old, *manifest))
        if name not in _PROVENANCE and old.get(name) != manifest.get(name)
    ]
    if different:
        raise UsageError(
            f"{folder} holds a different run ({'; '.join(different)}): "
            "choose another folder for --out, or remove this one"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run.

    Raises
    ------
    UsageError
        The file is not there: the folder is not a run.
    LpipstoreError
        The file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path.parent} is not a run of lpipstore: no {path.name}") from error
    except (OSError, ValueError) as error:
        raise LpipstoreError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise LpipstoreError(f"{path} is damaged: it should hold a JSON object")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file so that it is there whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def write_images(folder: Path, records: Sequence[ImageRecord]) -> None:
    """Write the table of a collection; images that were scored are numbered as in the matrix."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    scored = iter(range(len(records)))
    table = pa.table(
        {
            "index": pa.array(
                [None if record.error else next(scored) for record in records], pa.int64()
            ),
            "path": [printable(record.path) for record in records],
            "status": ["failed" if record.error else "ok" for record in records],
            "error": pa.array([record.error for record in records], pa.string()),
            "content_hash": pa.array(
                [record.content.hex() if record.content else None for record in records],
                pa.string(),
            ),
            "width": pa.array([record.width for record in records], pa.int32()),
            "height": pa.array([record.height for record in records], pa.int32()),
            "bytes": pa.array([record.bytes for record in records], pa.int64()),
        }
    )
    partial = folder / f"{IMAGES}.partial"
    pq.write_table(table, partial)
    partial.replace(folder / IMAGES)


def printable(path: str) -> str:
    """Return a path as text that can be stored and shown, bytes that are not UTF-8 escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class MatrixFile:
    """``distances.zarr``: a symmetric float32 [count, count] matrix, written tile by tile.

    A tile is a chunk, and a chunk is renamed into place when it is whole: what is there is done.
    Opening a matrix that exists continues it.

    Raises
    ------
    LpipstoreError
        The matrix that exists has another shape.
    """

    def __init__(self, folder: Path, count: int, tile: int, attributes: Mapping[str, Any]) -> None:
        import zarr

        self.path = folder / DISTANCES
        self.tile = tile
        self.count = count
        if (self.path / "zarr.json").exists():
            self.array = zarr.open_array(self.path, mode="r+", config={"write_empty_chunks": True})
            if self.array.shape != (count, count) or self.array.chunks != (tile, tile):
                raise LpipstoreError(
                    f"{self.path} is {self.array.shape[0]}×{self.array.shape[1]} in tiles of "
                    f"{self.array.chunks[0]}, but {count} images now could be read and the tile "
                    f"is {tile}: choose another folder for --out"
                )
        else:
            self.array = zarr.create_array(
                self.path,
                shape=(count, count),
                chunks=(tile, tile),
                dtype="float32",
                fill_value=float("nan"),
                compressors=None,
                dimension_names=("i", "j"),
                attributes=dict(attributes),
                config={"write_empty_chunks": True},
            )

    def done(self, row: int, column: int) -> bool:
        """Tell whether the tile at (row, column), counted in tiles, and its mirror are there."""
        return all(
            (self.path / "c" / f"{i}/{j}").exists() for i, j in ((row, column), (column, row))
        )

    def write(self, row: int, column: int, distances: NDArray[np.float32]) -> None:
        """Write one tile and, where it is off the diagonal, its mirror."""
        rows = slice(row * self.tile, row * self.tile + distances.shape[0])
        columns = slice(column * self.tile, column * self.tile + distances.shape[1])
        self.array[rows, columns] = distances
        if row != column:
            self.array[columns, rows] = distances.T


@dataclass(frozen=True)
class Run:
    """A finished run, opened by `open_run`."""

    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What was asked, with digests and versions."""
        return read_json(self.path / MANIFEST)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Counts, seconds for each stage, and statistics of the distances."""
        return read_json(self.path / SUMMARY)

    @cached_property
    def images(self) -> "pyarrow.Table":
        """The collection: index, path, status, error, content_hash, width, height, bytes."""
        import pyarrow.parquet as pq

        return pq.read_table(self.path / IMAGES)

    @cached_property
    def distances(self) -> "dask.array.Array":
        """The float32 [N, N] matrix as a lazy dask array; ``.compute()`` reads it whole."""
        import dask.array

        array: dask.array.Array = dask.array.from_zarr(self.path / DISTANCES)  # type: ignore[no-untyped-call]
        return array


def open_run(folder: str | os.PathLike[str]) -> Run:
    """Open the folder of a finished run.

    Raises
    ------
    UsageError
        The folder is not a run, or the run is not finished.
    """
    run = Run(Path(folder))
    read_json(run.path / MANIFEST)
    if not (run.path / SUMMARY).exists():
        raise UsageError(f"the run in {folder} is not finished: give its command again to go on")
    return run
