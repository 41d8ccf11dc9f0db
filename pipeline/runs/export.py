"""Export results for other programs: tables for pandas and spreadsheets, arrays for SciPy."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, UsageError, setting
from ..common.atomic import replacing
from ..common.progress import Report, silent
from ..common.text import printable
from .run import FinishedRun, complete

FORMATS = ("csv", "parquet", "npz")
_BAND = 64  # rows of a matrix that are read at a time
_BYTES = {"csv": 11, "parquet": 5, "npz": 6}  # per distance, approximately


@contextmanager
def writing_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that becomes `path` once it is complete.

    Raises
    ------
    LpipstoreError
        The file cannot be written; an existing file at `path` stays.
    """
    try:
        with replacing(path) as file:
            yield file
    except OSError as error:
        raise LpipstoreError(
            f"cannot write {printable(str(path))}: {error.strerror or error}; choose another "
            f"{setting('out')}"
        ) from error


def is_matrix(run: FinishedRun) -> bool:
    """Return whether the distances of a run are a matrix rather than a list of pairs."""
    return not (run.path / "pairs.parquet").exists() and run.distances.ndim == 2


def matrix_bytes(run: FinishedRun, kind: str) -> int:
    """Return the approximate size in bytes of a run's matrix in a format."""
    rows, columns = run.distances.shape
    return int(rows * columns * _BYTES[kind])


def export_matrix(run: FinishedRun, kind: str, file: IO[bytes], report: Report = silent) -> None:
    """Write the matrix of a run.

    ``csv``: a table with one line and one column per image, labelled with their paths. ``parquet``:
    one line per pair (i, j, path_i, path_j, distance); for all pairs of a collection, only those
    with i < j. ``npz``: ``distances``; for all pairs of a collection also ``paths`` and
    ``condensed`` (as `scipy.spatial.distance.squareform` takes it), otherwise ``paths_first`` and
    ``paths_second``.

    Raises
    ------
    LpipstoreError
        The matrix does not match the table of images, or lacks distances.
    """
    down, across, symmetric = _paths(run)
    if run.distances.shape != (len(down), len(across)):
        raise LpipstoreError(
            f"the run in {printable(str(run.path))} is damaged: the matrix has "
            f"shape {run.distances.shape}, for {len(down)} and {len(across)} images"
        )
    bands = _bands(run, report)
    if kind == "csv":
        _write_square(file, down, across, bands)
    elif kind == "parquet":
        _write_long(file, down, across, bands, symmetric)
    else:
        whole = np.concatenate([band for _, band in bands])
        arrays: dict[str, Any] = {"distances": whole}
        if symmetric:
            above = [row[number + 1 :] for number, row in enumerate(whole)]
            arrays |= {"condensed": np.concatenate(above), "paths": np.array(down)}
        else:
            arrays |= {"paths_first": np.array(down), "paths_second": np.array(across)}
        np.savez(file, **arrays)


def _paths(run: FinishedRun) -> tuple[list[str], list[str], bool]:
    """Return the paths of the rows and of the columns, and whether they are the same images."""
    images = run.images.filter(pa.compute.is_valid(run.images.column("index")))
    paths: list[str] = images.column("path").to_pylist()
    if "side" not in images.column_names:
        return paths, paths, True
    sides = images.column("side").to_pylist()
    first, second = (
        [path for path, side in zip(paths, sides, strict=True) if side == name]
        for name in ("first", "second")
    )
    return first, second, False


def _bands(run: FinishedRun, report: Report) -> Iterator[tuple[int, NDArray[np.float32]]]:
    import zarr

    array = zarr.open_array(run.path / "distances.zarr", mode="r")
    count, height = array.shape[0], max(_BAND, array.chunks[0])  # a chunk is read once
    for start in range(0, count, height):
        report("rows", start, count)
        yield start, complete(np.asarray(array[start : start + height]), run)
    report("rows", count, count)


def _write_square(
    file: IO[bytes],
    down: Sequence[str],
    across: Sequence[str],
    bands: Iterator[tuple[int, NDArray[np.float32]]],
) -> None:
    schema = pa.schema(
        [pa.field("path", pa.string()), *(pa.field(path, pa.float32()) for path in across)]
    )
    with pa.csv.CSVWriter(file, schema) as writer:
        for start, band in bands:
            names = pa.array(down[start : start + len(band)], pa.string())
            columns = [pa.array(column) for column in np.ascontiguousarray(band.T)]
            writer.write_batch(pa.record_batch([names, *columns], schema=schema))


def _write_long(
    file: IO[bytes],
    down: Sequence[str],
    across: Sequence[str],
    bands: Iterator[tuple[int, NDArray[np.float32]]],
    symmetric: bool,
) -> None:
    names = pa.array(down, pa.string()), pa.array(across, pa.string())
    types = {"i": pa.int64(), "j": pa.int64(), "path_i": pa.string(), "path_j": pa.string()}
    schema = pa.schema({**types, "distance": pa.float32()})
    with pa.parquet.ParquetWriter(file, schema) as writer:
        for start, band in bands:
            i, j = np.indices(band.shape).reshape(2, -1)
            i = i + start
            wanted = j > i if symmetric else np.ones(len(i), bool)
            i, j = pa.array(i[wanted]), pa.array(j[wanted])
            distance = pa.array(band.reshape(-1)[wanted])
            columns = [i, j, names[0].take(i), names[1].take(j), distance]
            writer.write_table(pa.table(columns, schema=schema))


def export_pairs(run: FinishedRun, kind: str, file: IO[bytes]) -> None:
    """Write the pairs of a run: the table as it is, or its numbers and paths as arrays (``npz``).

    In the arrays, an unusable image has number -1 and a missing distance is NaN.

    Raises
    ------
    UsageError
        The format cannot hold a column of the list.
    """
    table = run.pairs
    write: dict[str, Callable[[], None]] = {
        "csv": lambda: pa.csv.write_csv(table, file),
        "parquet": lambda: pa.parquet.write_table(table, file),
        "npz": lambda: np.savez(file, **_arrays(table)),
    }
    try:
        write[kind]()
    except pa.ArrowException as error:
        raise UsageError(
            f"the pairs of {printable(str(run.path))} cannot be written as {kind}: "
            f"{printable(str(error).splitlines()[0])}"
        ) from error


def _arrays(table: pa.Table) -> dict[str, Any]:
    numbers = {name: table.column(name).fill_null(-1).to_numpy() for name in ("i", "j")}
    paths = {
        name: np.array(table.column(name).fill_null("").to_pylist(), np.str_)
        for name in ("path_i", "path_j")
    }
    distance = table.column("distance").fill_null(float("nan")).to_numpy()
    return {**numbers, **paths, "distance": distance}
