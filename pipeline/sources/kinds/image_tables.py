"""Parquet and Arrow files with a column of images."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

from ..formats.image_columns import choose_column, read_cell
from ..formats.table_rows import TableRows, open_arrow, open_parquet
from ..identity import identify
from ..source import ImageError, Listing, SourceOptions

if TYPE_CHECKING:
    from ....cache.index import FileIdentity

PARQUET_SUFFIXES = (".parquet", ".pq")
ARROW_SUFFIXES = (".arrow", ".feather", ".ipc")


class ImageTable:
    """A table whose rows are images; members are row numbers from 0 on.

    Parquet is read in order of storage, one piece of a row group after another. Arrow files and
    streams, such as Hugging Face's datasets keep, are memory-mapped; compressed ones are read like
    Parquet. A cell without bytes names a file, relative to the table's folder.
    """

    def __init__(self, place: str, options: SourceOptions | None = None) -> None:
        self.place = place
        self._wanted = (options or SourceOptions()).image_column
        self._lock = RLock()
        self._opened: tuple[str, TableRows] | None = None
        self._identity: FileIdentity | None = None

    @staticmethod
    def takes(place: str) -> bool:
        """Return whether a path ends like that of a Parquet or Arrow file, and is no folder."""
        suffix = os.path.splitext(place)[1].lower()
        return suffix in (*PARQUET_SUFFIXES, *ARROW_SUFFIXES) and not os.path.isdir(place)

    @property
    def sequential(self) -> bool:
        """Whether rows are read quickly only in order: all but memory-mapped ones."""
        try:
            return not self._open()[1].random
        except ImageError:  # reading it tells why
            return False

    def list(self) -> Listing:
        """List the numbers of the rows; entries that are null fail when they are read."""
        rows = self._open()[1]
        listing = Listing([str(row) for row in range(len(rows))])
        if rows.ending is not None:
            reason = f"damaged or cut short after {len(rows):,} rows: {rows.ending}"
            listing.unreadable.append((self.place, reason))
        return listing

    def version(self, member: str) -> "FileIdentity | None":
        """Return that of the table, with the column and the row; None if rows name other files."""
        with self._lock:
            if self._identity is None:
                self._identity = identify(self.place)
            identity = self._identity
        try:
            column, rows = self._open()
        except ImageError:  # reading it tells why
            return None
        if rows.unfilled:
            return None
        return replace(identity, path=identity.path + os.fsencode(f"#{column}#{member}"))

    def read(self, member: str) -> bytes:
        """Return the encoded image of a row."""
        rows = self._open()[1]
        if not (member.isdecimal() and member.isascii() and int(member) < len(rows)):
            raise ImageError(f"there is no such row: the table has {len(rows):,}, numbered from 0")
        return read_cell(rows.cell(int(member)), os.path.dirname(self.place))

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            self._opened = self._identity = None

    def _open(self) -> tuple[str, TableRows]:
        with self._lock:
            if self._opened is None:
                open_table = (
                    open_parquet if self.place.lower().endswith(PARQUET_SUFFIXES) else open_arrow
                )
                self._opened = open_table(
                    Path(self.place), partial(choose_column, wanted=self._wanted)
                )
            return self._opened
