"""The close pairs of images: out of a finished run, or found by a search."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import UsageError, setting
from ...pipeline.analysis.threshold import suggest_threshold
from ...pipeline.common.text import printable
from ...pipeline.images.survey import ImageRecord
from ...pipeline.runs.files import MANIFEST
from ...pipeline.runs.reopen import reopen_kind, reopen_records, reopen_source_choices
from ...pipeline.runs.run import FinishedRun, open_run
from ...pipeline.sources.sources import Given
from ..scoring.close_pairs import find_close
from ..session.screen import Screen
from ..session.settings import Settings


@dataclass(frozen=True)
class CloseImages:
    """All pairs of usable images closer than `below`, each once.

    Attributes
    ----------
    images
        The usable images.
    left, right
        int64 [pairs]: indices into `images`, ``left < right``.
    distances
        float32 [pairs].
    below
        The threshold.
    reason
        Why it is that one.
    failed
        Number of images that cannot be used.
    choices
        How sources were read, as in `lpipstore.workflows.session.settings.Settings`.
    """

    images: list[ImageRecord]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    distances: NDArray[np.float32]
    below: float
    reason: str
    failed: int
    choices: Mapping[str, str]


def close_pairs_of(
    given: Sequence[Given], below: float | None, settings: Settings, screen: Screen
) -> CloseImages:
    """Return the pairs closer than `below`, or than what the distances themselves suggest.

    Parameters
    ----------
    given
        One finished run of all pairs or of ``below``, whose distances are read; or images, which
        are searched.

    Raises
    ------
    UsageError
        The run has other distances, or was asked for closer pairs than are wanted now.
    LpipstoreError
        The run is damaged, or the images cannot be searched.
    """
    if below is not None and not below > 0:
        raise UsageError(f"{setting('below', below)} must be more than 0")
    run = run_among(given)
    if run is None:
        return _search(given, below, settings, screen)
    kind = reopen_kind(run, "duplicates")
    if kind == "pairs":
        return _of_matrix(run, below, screen)
    if kind == "close" and run.manifest.get("top_k") is None:
        return _of_list(run, below)
    raise UsageError(
        f"{printable(str(run.path))} does not have all close pairs of one collection: give a run "
        f"of all pairs or of {setting('below')}, or the images themselves"
    )


def run_among(given: Sequence[Given]) -> FinishedRun | None:
    """Return the run that was given; None for images.

    Raises
    ------
    UsageError
        Other things were given besides the run, or it is not finished.
    """
    paths = [Path(one) for one in given if isinstance(one, str | Path)]
    runs = [path for path in paths if (path / MANIFEST).is_file()]
    if not runs:
        return None
    if len(given) > 1:
        raise UsageError(
            f"{printable(str(runs[0]))} is a run: give it alone, or give images instead"
        )
    return open_run(runs[0])


def _search(
    given: Sequence[Given], below: float | None, settings: Settings, screen: Screen
) -> CloseImages:
    with tempfile.TemporaryDirectory(prefix="lpipstore-duplicates-") as scratch:
        reason = "it was asked for"
        if below is None:
            find_close(given, Path(scratch) / "nearest", settings, screen, top_k=1)
            pairs = open_run(Path(scratch) / "nearest").pairs
            below, reason = _suggested(pairs["distance"].to_numpy(), screen)
        find_close(given, Path(scratch) / "close", settings, screen, below=below)
        return _listed(open_run(Path(scratch) / "close"), below, reason)


def _of_list(run: FinishedRun, below: float | None) -> CloseImages:
    most = float(run.manifest["below"])
    if below is not None and below > most:
        raise UsageError(
            f"{printable(str(run.path))} has only pairs closer than {most:g}, not than {below:g}"
        )
    reason = "it is that of the run" if below is None else "it was asked for"
    return _listed(run, most if below is None else below, reason)


def _listed(run: FinishedRun, below: float, reason: str) -> CloseImages:
    table = run.pairs
    left, right = (np.asarray(table[name].to_numpy(), np.int64) for name in ("i", "j"))
    distances = np.asarray(table["distance"].to_numpy(), np.float32)
    close = distances < below
    pairs = np.minimum(left, right)[close], np.maximum(left, right)[close], distances[close]
    return _close(run, *pairs, below, reason)


def _of_matrix(run: FinishedRun, below: float | None, screen: Screen) -> CloseImages:
    """Read the matrix band by band: once for the threshold if none is given, once for the pairs."""
    reason = "it was asked for"
    if below is None:
        nearest = np.concatenate([band.min(1) for _, band in bands(run)])
        below, reason = _suggested(nearest, screen)
    found = []
    for top, band in bands(run):
        rows, columns = np.nonzero(band < below)
        above = columns > rows + top
        found.append((rows[above] + top, columns[above], band[rows[above], columns[above]]))
    left, right, distances = (np.concatenate(part) for part in zip(*found, strict=True))
    return _close(run, left, right, distances, below, reason)


def bands(run: FinishedRun) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (first row, rows) of bands of the matrix, with infinity on its diagonal."""
    matrix: Any = run.distances
    height = matrix.chunks[0][0]
    for top in range(0, matrix.shape[0], height):
        band = np.array(matrix[top : top + height])
        places = np.arange(len(band))
        band[places, places + top] = np.inf
        yield top, band


def _close(
    run: FinishedRun,
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    distances: NDArray[np.float32],
    below: float,
    reason: str,
) -> CloseImages:
    records = reopen_records(run)
    usable = [record for record in records if not record.error]
    failed, choices = len(records) - len(usable), reopen_source_choices(run)
    return CloseImages(usable, left, right, distances, below, reason, failed, choices)


def _suggested(nearest: NDArray[np.floating], screen: Screen) -> tuple[float, str]:
    """Return the threshold that the distances suggest, and why; warn if it is a guess."""
    suggestion = suggest_threshold(nearest)
    if not suggestion.clear:
        screen.warn(f"the distances suggest no clear threshold: {setting('below')} sets one")
    return suggestion.below, suggestion.reason
