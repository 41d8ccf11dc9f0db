"""Close pairs on disk: parts while a search runs, one table at its end."""

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.atomic import replacing
from ..common.text import printable
from ..images.survey import ImageRecord
from ..runs.files import PAIRS, PARTS, contents_digest
from .cascade import Tally
from .sides import Sides

_TALLY = b"lpipstore_search"
_PART = re.compile(r"[0-9a-f]{16}-[\w-]+\.npz")


class SearchParts:
    """What a search has found so far, part by part; each part is written atomically.

    Parameters
    ----------
    folder
        The run's folder.
    contents
        Content hash of each image; parts of other images are ignored.
    """

    def __init__(self, folder: Path, contents: Sequence[bytes]) -> None:
        self._folder = folder / PARTS
        self._digest = contents_digest(contents)

    def read(self, name: str) -> tuple[dict[str, NDArray[Any]], Tally] | None:
        """Return what `write` was given, or None if the part is missing or damaged."""
        try:
            with np.load(self._path(name)) as arrays:
                found = dict(arrays)
        except (FileNotFoundError, ValueError, EOFError, zipfile.BadZipFile):
            return None  # missing, or truncated by a power failure
        return found, Tally(**json.loads(found.pop("tally").item()))

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]], tally: Tally) -> None:
        """Write a part."""
        self._folder.mkdir(exist_ok=True)
        everything: dict[str, Any] = {**arrays, "tally": np.array(json.dumps(vars(tally)))}
        with replacing(self._path(name)) as file:
            np.savez(file, **everything)

    def remove(self) -> None:
        """Remove all parts, once the table holds their content; other files stay."""
        if not self._folder.exists():
            return
        for path in self._folder.iterdir():
            if _PART.fullmatch(path.name):
                path.unlink()
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _path(self, name: str) -> Path:
        return self._folder / f"{self._digest[:16]}-{name}.npz"


def write_pairs(
    folder: Path,
    records: Sequence[ImageRecord],
    columns: Mapping[str, NDArray[Any]],
    tally: Tally,
    sides: Sides,
) -> None:
    """Write ``pairs.parquet``. With two sides, each is numbered from 0, as in their matrix.

    Parameters
    ----------
    folder
        The run's folder.
    records
        The images that were scored.
    columns
        ``i`` and ``j``, image numbers, and further columns; the paths are inserted after these two.
    tally
        The work of the search.
    sides
        What was searched.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array([printable(record.path) for record in records], pa.string())
    paths = {f"path_{end}": names.take(pa.array(columns[end])) for end in ("i", "j")}
    shown = sides.shown(columns)
    table = pa.table({"i": shown.pop("i"), "j": shown.pop("j"), **paths, **shown})
    done = {"contents": _digest_of(records), **vars(tally)}
    table = table.replace_schema_metadata({_TALLY: json.dumps(done)})
    with replacing(folder / PAIRS) as file:
        pq.write_table(table, file)


def finished_pairs(
    folder: Path, records: Sequence[ImageRecord]
) -> tuple[NDArray[np.float32], Tally] | None:
    """Return the distances of a finished table of these images and its tally; None without one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with (folder / PAIRS).open("rb") as file:
            table = pq.read_table(file)
    except (FileNotFoundError, pa.ArrowInvalid):
        return None  # missing, or truncated by a power failure
    done = json.loads((table.schema.metadata or {}).get(_TALLY, b"{}"))
    if done.pop("contents", None) != _digest_of(records):
        return None
    return table["distance"].to_numpy(), Tally(**done)


def _digest_of(records: Sequence[ImageRecord]) -> str:
    return contents_digest(record.content for record in records)
