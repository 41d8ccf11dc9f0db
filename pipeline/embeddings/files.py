"""Files of vectors, written as they come: .npy, .parquet and .zarr, whole or not at all.

A Parquet file has the names of the images in a column of its own; beside an array, ``FILE.csv`` has
them. Each kind of file is one context manager that takes what `open_vectors` takes; a new kind is
another, and a line in `KINDS`.
"""

import csv
import io
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import UsageError, setting
from ..common.text import json_text, printable
from ..runs.export import writing_file

Write = Callable[[NDArray[np.float32], Sequence[str]], None]
"""``write(vectors, names)`` appends vectors [n, width] and the names of their images."""

Opened = AbstractContextManager[Write]

ABOUT = "lpipstore"
"""Where a Parquet file (schema metadata, as JSON) and a Zarr array (attributes) say how the vectors
were made."""


def open_vectors(path: Path, shape: tuple[int, int], step: int, about: Mapping[str, Any]) -> Opened:
    """Open a file for vectors; it is there, whole, when the ``with`` block has ended.

    Parameters
    ----------
    path
        Its suffix, from `KINDS`, says what kind of file it is.
    shape
        (images, width).
    step
        Vectors in each call but the last: the rows of a chunk or row group.
    about
        How the vectors were made: what JSON knows.

    Raises
    ------
    UsageError
        There is no such kind of file.
    LpipstoreError
        It cannot be written; nothing is left of it.
    """
    check_kind(path)
    return KINDS[path.suffix](path, shape, step, about)


def check_kind(path: Path) -> None:
    """Raise `UsageError` unless vectors can be written to files that are named like `path`."""
    if path.suffix not in KINDS:
        raise UsageError(
            f"{setting('out', printable(str(path)))} must end in {', '.join(KINDS)}, which says "
            "what to write"
        )


def names_path(path: Path) -> Path | None:
    """Return the file with the names of the images beside a file of vectors; None: it has them."""
    return None if path.suffix == ".parquet" else path.with_name(f"{path.name}.csv")


@contextmanager
def _npy(
    path: Path, shape: tuple[int, int], step: int, about: Mapping[str, Any]
) -> Iterator[Write]:
    # The names come first: where vectors are, they have names
    with writing_file(path) as file, _names_beside(path) as list_names:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

        def write(vectors: NDArray[np.float32], names: Sequence[str]) -> None:
            file.write(np.ascontiguousarray(vectors, "<f4").data)
            list_names(names)

        yield write


@contextmanager
def _parquet(
    path: Path, shape: tuple[int, int], step: int, about: Mapping[str, Any]
) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.list_(pa.float32(), shape[1])
    schema = pa.schema(
        [pa.field("path", pa.string(), nullable=False), pa.field("embedding", kind)],
        metadata={ABOUT: json_text(about)},
    )
    with (
        writing_file(path) as file,
        pq.ParquetWriter(file, schema, compression="none", use_dictionary=False) as table,
    ):

        def write(vectors: NDArray[np.float32], names: Sequence[str]) -> None:
            flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
            lists = pa.FixedSizeListArray.from_arrays(flat, type=kind)
            columns = [pa.array([*map(printable, names)], pa.string()), lists]
            table.write_batch(pa.record_batch(columns, schema=schema))

        yield write


@contextmanager
def _zarr(
    path: Path, shape: tuple[int, int], step: int, about: Mapping[str, Any]
) -> Iterator[Write]:
    import zarr

    temporary = path.with_name(f".lpipstore-{secrets.token_hex(8)}.partial")
    try:
        with _names_beside(path) as list_names:
            array: Any = zarr.create_array(
                temporary,
                shape=shape,
                chunks=(min(step, shape[0]), shape[1]),
                dtype="float32",
                fill_value=float("nan"),
                compressors=None,
                dimension_names=("image", "number"),
                attributes={ABOUT: dict(about)},
                config={"write_empty_chunks": True},
            )
            done = 0

            def write(vectors: NDArray[np.float32], names: Sequence[str]) -> None:
                nonlocal done
                array[done : done + len(vectors)] = vectors
                done += len(vectors)
                list_names(names)

            yield write
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # renamed, unless something failed


@contextmanager
def _names_beside(path: Path) -> Iterator[Callable[[Sequence[str]], None]]:
    """Open the list of names beside a file of vectors: CSV with the columns index and path."""
    beside = path.with_name(f"{path.name}.csv")
    with writing_file(beside) as file:
        text = _text_of(file)
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(["index", "path"])
        done = 0

        def add(names: Sequence[str]) -> None:
            nonlocal done
            lines.writerows(enumerate(map(printable, names), done))
            done += len(names)

        yield add
        text.flush()
        text.detach()


def _text_of(file: IO[bytes]) -> io.TextIOWrapper:
    return io.TextIOWrapper(file, encoding="utf-8", newline="")


KINDS: dict[str, Callable[[Path, tuple[int, int], int, Mapping[str, Any]], Opened]] = {
    ".npy": _npy,
    ".parquet": _parquet,
    ".zarr": _zarr,
}
"""Kinds of files, by their suffixes."""
