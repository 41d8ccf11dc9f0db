"""Export the distances of a run for other programs."""

import shutil
import sys
from pathlib import Path
from typing import Any

from ...cache.errors import UsageError, setting
from ...pipeline.common.text import printable
from ...pipeline.runs.export import (
    FORMATS,
    export_matrix,
    export_pairs,
    is_matrix,
    matrix_bytes,
    writing_file,
)
from ...pipeline.runs.run import FinishedRun, open_run
from ..session.collection import check_choice, check_new
from ..session.screen import Screen, printing
from ..session.settings import show_bytes

STDOUT = Path("-")
_LARGE = 1_000_000_000


def export_run(folder: Path, kind: str | None, out: Path | None, screen: Screen) -> dict[str, Any]:
    """Write the matrix or the list of pairs of a finished run to one file.

    Parameters
    ----------
    kind
        "csv", "parquet" or "npz"; None uses the suffix of `out`, or csv on the standard output.
    out
        The file; None means ``export.KIND`` in the run's folder, "-" the standard output (csv
        only).

    Returns
    -------
    dict
        ``file``, ``format``, ``matrix`` (False for a list of pairs) and ``bytes``.

    Raises
    ------
    LpipstoreError
        The run is not finished or is damaged, the format is unknown or contradicts `out`, or the
        file exists already or cannot be written.
    """
    run = open_run(folder)
    if kind is None and out == STDOUT:
        kind = "csv"
    if kind is None:
        if out is None or out.suffix.lstrip(".") not in FORMATS:
            raise UsageError(f"choose a {setting('kind')}: {', '.join(FORMATS)}")
        kind = out.suffix.lstrip(".")
    check_choice("kind", kind, FORMATS)
    if out is not None and out.suffix.lstrip(".") in set(FORMATS) - {kind}:
        raise UsageError(
            f"{setting('kind', kind)} contradicts {setting('out', printable(str(out)))}"
        )
    own = folder / f"export.{kind}"  # may be overwritten
    path = own if out is None else out
    matrix = is_matrix(run)
    if matrix:
        _tell_size(run, kind, path, screen)
    if path == STDOUT:
        if kind != "csv":
            raise UsageError(f"{setting('out', '-')} prints csv only, not {kind}: name a file")
        with printing():
            _write(run, kind, sys.stdout.buffer, matrix, screen)
            sys.stdout.flush()
        return {"file": "-", "format": kind, "matrix": matrix, "bytes": None}
    if path.absolute() != own.absolute():
        check_new("out", path)
    with writing_file(path) as file:
        _write(run, kind, file, matrix, screen)
    written = path.stat().st_size
    return {"file": str(path), "format": kind, "matrix": matrix, "bytes": written}


def _write(run: FinishedRun, kind: str, file: Any, matrix: bool, screen: Screen) -> None:  # noqa: ANN401
    if matrix:
        export_matrix(run, kind, file, screen.report)
    else:
        export_pairs(run, kind, file)


def _tell_size(run: FinishedRun, kind: str, path: Path, screen: Screen) -> None:
    """Warn if the file is large, or if the disk has no room for it."""
    need = matrix_bytes(run, kind)
    parent = path.absolute().parent
    if path != STDOUT and parent.exists() and need > shutil.disk_usage(parent).free:
        screen.warn(f"the file takes about {show_bytes(need)}, more than the disk has room for")
    elif need > _LARGE:
        screen.warn(f"the file takes about {show_bytes(need)}")


def export_lines(outcome: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the summary lines, as (name, value) pairs."""
    what = "matrix" if outcome["matrix"] else "pairs"
    return [(what, f"{printable(outcome['file'])} ({show_bytes(outcome['bytes'])})")]
