"""Read lists of pairs: tables with two columns of paths, as distinct paths and pairs of indices."""

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from ...cache.errors import UsageError, setting
from ..common.text import printable
from ..sources.names import absolute, joined

COLUMN_NAMES = (
    ("path_a", "path_b"),
    ("path_i", "path_j"),
    ("path_1", "path_2"),
    ("path1", "path2"),
    ("image_a", "image_b"),
    ("image_1", "image_2"),
    ("image1", "image2"),
    ("a", "b"),
    ("left", "right"),
)
"""Names that identify the two columns of paths; without them the first two columns are used."""

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class PairList:
    """Pairs of image files.

    Attributes
    ----------
    paths
        Each file once, in order of first appearance; "" for a missing path.
    left, right
        int64 [pairs]: indices into `paths` of the two files of each pair.
    extra
        The other columns of the list, one line per pair; may have no columns.
    """

    paths: list[str]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    extra: pa.Table


def read_pairs(
    table: Path, columns: Sequence[str] | None = None, images: Path | None = None
) -> PairList:
    """Read a list of pairs from a CSV, TSV or Parquet file.

    CSV is UTF-8 with a header line, quoted as in RFC 4180; paths may hold any bytes.

    Parameters
    ----------
    table
        A file that ends in .csv, .tsv, .parquet or .pq.
    columns
        Names of the two columns of paths; None looks for `COLUMN_NAMES`, then takes the first two.
    images
        The folder that paths are relative to; None means the table's own folder.

    Raises
    ------
    UsageError
        The file is missing or not a readable table, has no header line, lacks the columns, or lists
        no pairs.
    """
    shown = printable(str(table))
    content, sides = read_table(table, lambda names: _choose(names, columns, shown))
    if not len(content):
        raise UsageError(f"{shown} lists no pairs: it has column names and nothing under them")
    names = [content.column_names[side] for side in sides]
    base = str(table.parent if images is None else images)
    if columns is None and all(os.path.isfile(os.path.join(base, name)) for name in names):
        raise UsageError(
            f"the first line of {shown} names two files and not its columns: put a line such as "
            "path_a,path_b above it"
        )
    chooses = f"{shown} ({setting('columns', 'A,B')} chooses)"
    given, (left, right) = number_names([as_names(content.column(side), chooses) for side in sides])
    paths, same = resolve_names(given, base)
    rest = [place for place in range(content.num_columns) if place not in sides]
    return PairList(paths, same[left], same[right], content.select(rest))


def read_table(
    table: Path, choose: Callable[[Sequence[str]], list[int]]
) -> tuple[pa.Table, list[int]]:
    """Read a CSV, TSV or Parquet file; `choose` finds its columns of paths by name.

    Returns the table and the indices of these columns. Raises `UsageError` if the file is not a
    readable table.
    """
    shown = printable(str(table))
    suffix = table.suffix.lower()
    if suffix not in (*_DELIMITERS, *_PARQUET):
        raise UsageError(f"{shown} must be a table that ends in .csv, .tsv, .parquet or .pq")
    try:
        if suffix in _PARQUET:
            with table.open("rb") as file:
                content = pa.parquet.read_table(file)
            return content, choose(content.column_names)
        parsing = pa.csv.ParseOptions(delimiter=_DELIMITERS[suffix], newlines_in_values=True)
        names = _header(table, _DELIMITERS[suffix])
        sides = choose(names)
        # Paths are bytes to the system, and names made of digits must not become numbers
        converting = pa.csv.ConvertOptions(
            column_types={names[side]: pa.binary() for side in sides}, strings_can_be_null=False
        )
        with table.open("rb") as file:
            content = pa.csv.read_csv(file, parse_options=parsing, convert_options=converting)
        return content, sides
    except (pa.ArrowException, csv.Error, UnicodeError) as error:
        raise UsageError(
            f"{shown} cannot be read as a table: {printable(str(error).splitlines()[0])}"
        ) from error
    except OSError as error:
        raise UsageError(f"{shown} cannot be read: {error.strerror or error}") from error


def _header(table: Path, delimiter: str) -> list[str]:
    """Return the column names: the first line that is not empty.

    Arrow's incremental reader will not do: its background threads abort the process if it exits
    meanwhile, as it does on wrong names.
    """
    # Paths further down may be any bytes; names are text
    with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for names in csv.reader(file, delimiter=delimiter):
            if "\0" in "".join(names):
                raise pa.ArrowInvalid("CSV is text, and this is none")
            if names:
                "".join(names).encode()  # raises if a name is not UTF-8
                return names
    raise pa.ArrowInvalid("Empty CSV file")


def _choose(names: Sequence[str], columns: Sequence[str] | None, shown: str) -> list[int]:
    listed = ", ".join(map(printable, names))
    if columns is not None:
        missing = [name for name in columns if names.count(name) != 1]
        if missing or len(columns) != 2 or columns[0] == columns[1]:
            what = f"no single column {printable(missing[0])}" if missing else "two are needed"
            raise UsageError(
                f"{setting('columns', printable(','.join(columns)))}: {what}; {shown} has the "
                f"columns {listed}"
            )
        return [names.index(name) for name in columns]
    lower = [name.lower() for name in names]
    for pair in COLUMN_NAMES:
        if all(lower.count(name) == 1 for name in pair):
            return [lower.index(name) for name in pair]
    if len(names) < 2 or names[0] == names[1]:
        hint = ": columns are told apart by commas in .csv" if ";" in listed else ""
        raise UsageError(
            f"{shown} needs two columns of paths with a name each, and has the columns "
            f"{listed}{hint}"
        )
    return [0, 1]


def as_names(column: pa.ChunkedArray, shown: str) -> pa.ChunkedArray:
    """Return a column of paths as bytes, "" for a missing path; `shown` names the table in errors.

    Raises `UsageError` if the column does not hold text or bytes.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    textual = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_string_view,
        pa.types.is_binary_view,
    )
    if not any(is_kind(kind) for is_kind in textual):
        raise UsageError(f"{shown} holds {kind} where paths should be")
    return column.cast(kind).cast(pa.large_binary()).fill_null(b"")


def number_names(sides: Sequence[pa.ChunkedArray]) -> tuple[list[bytes], NDArray[np.int64]]:
    """Number the distinct values of all columns by first appearance, line by line.

    Returns the values, and int64 [columns, lines]: the index of each entry among them.
    """
    both = pa.chunked_array([chunk for side in sides for chunk in side.chunks], pa.large_binary())
    coded = both.combine_chunks().dictionary_encode()
    codes = coded.indices.to_numpy().reshape(len(sides), -1)
    backwards = codes.T.ravel()[::-1]
    first = np.empty(len(coded.dictionary), np.int64)
    first[backwards] = np.arange(len(backwards))[::-1]  # backwards, so that the first one wins
    order = np.argsort(first)
    rank = np.argsort(order)
    values = coded.dictionary.take(pa.array(order)).to_pylist()
    return values, rank[codes]


def resolve_names(given: Sequence[bytes], base: str) -> tuple[list[str], NDArray[np.int64]]:
    """Return each distinct file once, and for each given path the index of its file."""
    numbers: dict[str, int] = {}
    paths: list[str] = []
    same = np.empty(len(given), np.int64)
    for place, name in enumerate(given):
        path = joined(base, os.fsdecode(name)) if name else ""
        number = numbers.setdefault(absolute(path) if path else "", len(paths))
        if number == len(paths):
            paths.append(path)
        same[place] = number
    return paths, same
