"""Results as files: a table as .csv, .json or .parquet, and images laid out in a folder."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from PIL import Image

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.common.atomic import replacing
from ...pipeline.common.text import json_text, printable
from ...pipeline.pairlists.file import write_table
from ...pipeline.sources.arrays import to_uint8
from ...pipeline.sources.names import is_there, is_url, split_given, split_name
from ...pipeline.sources.source import ImageError
from ...pipeline.sources.sources import Sources
from ..session.collection import check_new
from ..session.screen import Screen

FORMATS = (".csv", ".json", ".parquet")
_NAMED = 10  # missing images that a warning lists, one per line


class Tabular(Protocol):
    """A result that has a line for each image."""

    def entries(self) -> dict[str, Any]:
        """Return what a .json file holds."""

    def table(self) -> pa.Table:
        """Return what a .csv or .parquet file holds."""


def check_outputs(out: Path | None, link: Path | None = None) -> None:
    """Raise `UsageError` if a file is of no known format, or something is there already."""
    if out is not None and out.suffix not in FORMATS:
        raise UsageError(f"{setting('out', printable(str(out)))} must end in {', '.join(FORMATS)}")
    for name, path in (("out", out), ("link", link)):
        if path is not None:
            check_new(name, path)


def write_result(result: Tabular, out: Path) -> None:
    """Write a result, whole or not at all, in the format that the name of the file ends in.

    Raises
    ------
    LpipstoreError
        It cannot be written.
    """
    try:
        if out.suffix == ".parquet":
            write_table(out, result.table())
            return
        with replacing(out) as file:
            if out.suffix == ".json":
                file.write(json_text(result.entries()).encode() + b"\n")
            else:
                import pyarrow.csv as pa_csv

                pa_csv.write_csv(result.table(), file)
    except OSError as error:
        raise LpipstoreError(
            f"cannot write {printable(str(out))}: {error.strerror or error}"
        ) from error


def lay_out(images: Mapping[str, str], folder: Path, sources: Sources, screen: Screen) -> None:
    """Lay out images in a new folder: links to files, copies of what lies in archives and the like.

    Images that are gone are left out, with a warning.

    Parameters
    ----------
    images
        The name of each image by what its link is called, but for the image's own name, which is
        put behind a hyphen.

    Raises
    ------
    LpipstoreError
        The folder cannot be written.
    """
    gone = []
    try:
        folder.mkdir(parents=True)
        for label, name in images.items():
            try:
                _lay(name, folder / f"{label}-{_file_name(name)}", sources)
            except ImageError as error:
                gone.append(f"{printable(name)}: {error}")
    except OSError as error:
        raise LpipstoreError(
            f"cannot lay out images in {printable(str(folder))}: {error.strerror or error}"
        ) from error
    for line in gone[:_NAMED]:
        screen.warn(f"left out of {setting('link')}: {line}")
    if gone[_NAMED:]:
        screen.warn(f"left out of {setting('link')}: {len(gone) - _NAMED:,} more")


def _lay(name: str, target: Path, sources: Sources) -> None:
    alone = split_given(name) is None and split_name(name)[1] is None
    if alone and not is_url(name):
        if not is_there(name):
            raise ImageError("it is gone")
        target.symlink_to(os.path.abspath(name))
        return
    data = sources.read(name)
    if isinstance(data, bytes):
        target.write_bytes(data)
    else:
        Image.fromarray(to_uint8(data).numpy()).save(target.with_name(f"{target.name}.png"))


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", os.path.basename(printable(name)))[-100:]
