"""Score the pairs within each folder of a collection: the diversity of groups of images.

The mean over groups of the mean distance within each is the diversity score of conditional
generative models (Zhu et al. 2017, "Toward multimodal image-to-image translation", section 5).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.common.text import printable
from ...pipeline.images.names import absolute, folder_of
from ...pipeline.images.sources import Given
from ...pipeline.images.survey import ImageRecord
from ...pipeline.pairlists.file import LINES_AT_ONCE, write_parts, write_table
from ...pipeline.pairlists.summary import summarise_groups
from ...pipeline.pairlists.table import PairList
from ...pipeline.runs.files import GROUPS, PAIRS, SUMMARY
from ...pipeline.runs.run import Run
from ..session.screen import Screen
from ..session.session import find_collection, open_session
from ..session.settings import Settings, parse_bytes
from .job import Lines, run_job
from .pairlist import ListJob, Scored, list_lines

_PAIR_BYTES = 160  # of one pair from the list to the tables, at most


def score_groups(
    sources: Sequence[Given],
    out: Path,
    settings: Settings,
    screen: Screen,
) -> dict[str, Any]:
    """Score all pairs of images that lie in the same folder and write the run to `out`.

    Every folder below the sources in which images lie is a group. Returns the summary.

    Raises
    ------
    LpipstoreError
        No folder holds two usable images, the memory is too small, or `out` holds a
        different run.
    """
    with open_session(settings, screen) as session:
        records = find_collection(sources, session)
        return run_job(WithinFolders.of(records, settings), records, out, session)


@dataclass(frozen=True)
class WithinFolders(ListJob):
    """The pairs within each folder.

    Attributes
    ----------
    names
        The folders.
    group_of
        int64, one for each image: the number of its folder.
    """

    names: Sequence[str] = ()
    group_of: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(cls, records: Sequence[ImageRecord], settings: Settings) -> "WithinFolders":
        """List the pairs within folders.

        Raises
        ------
        UsageError
            The pairs do not fit in the memory of the settings.
        """
        names, group_of = _group(records)
        usable = np.array([not record.error for record in records], bool)
        counts = np.bincount(group_of[usable], minlength=len(names))
        _memory_of(counts, names, parse_bytes(settings.memory))
        return cls(_pairs_within(records, group_of, len(names)), False, names, group_of)

    @classmethod
    def reopen(
        cls,
        run: Run,
        then: Sequence[ImageRecord],
        now: Sequence[ImageRecord],
        settings: Settings,
    ) -> "WithinFolders":
        """List the pairs within the folders of the images."""
        return cls.of(now, settings)

    def besides(self) -> Mapping[str, Any]:
        """Return how images are grouped."""
        return {"group_by": "folder"}

    def memory(self, settings: Settings) -> int:
        """Return the bytes that rows may take: the pairs take some, too."""
        return parse_bytes(settings.memory) - len(self.pairs.left) * _PAIR_BYTES

    def write(self, scored: Scored, out: Path) -> dict[str, Any]:
        """Write pairs and groups."""
        return _write(scored, out, self.names, self.group_of)

    @staticmethod
    def lines(summary: dict[str, Any], out: Path) -> Lines:
        """Return the summary as lines for people."""
        return group_lines(summary, out)


def _group(records: Sequence[ImageRecord]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the folders in which images lie, and the number of each record's folder."""
    numbers: dict[str, int] = {}
    folders: list[str] = []
    group_of = np.empty(len(records), np.int64)
    for place, record in enumerate(records):
        folder = folder_of(record.path)
        number = numbers.setdefault(absolute(folder), len(folders))
        if number == len(folders):
            folders.append(folder or ".")
        group_of[place] = number
    return folders, group_of


def _pairs_within(
    records: Sequence[ImageRecord], group_of: NDArray[np.int64], groups: int
) -> PairList:
    usable = np.array([not record.error for record in records])
    members = np.flatnonzero(usable)[np.argsort(group_of[usable], kind="stable")]
    counts = np.bincount(group_of[usable], minlength=groups)
    if counts.max() < 2:
        raise LpipstoreError(
            f"no folder holds two images that can be used: there are {len(members):,} in "
            f"{groups:,} folders, and pairs are made within each"
        )
    starts = np.cumsum(counts) - counts
    left, right = np.empty((2, int((counts * (counts - 1) // 2).sum())), np.int64)
    done = 0
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        for place in range(start, start + count - 1):
            line = slice(done, done + start + count - 1 - place)
            left[line] = members[place]
            right[line] = members[place + 1 : start + count]
            done = line.stop
    return PairList([record.path for record in records], left, right, pa.table({}))


def _memory_of(counts: NDArray[np.int64], names: Sequence[str], memory: int) -> int:
    """Return the bytes that the pairs within folders of so many images take.

    Raises `UsageError` if that is more than half of `memory`: the other half is for rows.
    """
    pairs = int((counts * (counts - 1) // 2).sum())
    if pairs * _PAIR_BYTES <= memory // 2:
        return pairs * _PAIR_BYTES
    largest = int(counts.argmax())
    raise UsageError(
        f"{setting('memory')} is too small for {pairs:,} pairs within folders: it takes "
        f"{math.ceil(2 * pairs * _PAIR_BYTES / 1e6)}MB at least; {printable(names[largest])} "
        f"alone has {counts[largest]:,} images, and without {setting('group_by')} they make a "
        "matrix in any memory"
    )


def _write(
    scored: Scored, out: Path, names: Sequence[str], group_of: NDArray[np.int64]
) -> dict[str, Any]:
    """Write ``groups.parquet`` and ``pairs.parquet``, and return what the summary says of groups.

    Images that turned out to be unusable when they were decoded leave no pairs behind.
    """
    usable = scored.usable
    shown = [printable(name) for name in names]
    column, lines = pa.array(shown, pa.string()), np.flatnonzero(usable)

    def parts() -> Iterator[pa.Table]:
        for start in range(0, len(lines), LINES_AT_ONCE):
            part = lines[start : start + LINES_AT_ONCE]
            groups = column.take(pa.array(group_of[scored.pairs.left[part]]))
            yield scored.table(part).append_column("group", groups)

    write_parts(out / PAIRS, parts())
    left, right = (scored.index[side[usable]] for side in (scored.pairs.left, scored.pairs.right))
    return write_groups(
        out, shown, group_of[scored.index >= 0], scored.distances[usable], left, right
    )


def write_groups(
    out: Path,
    names: Sequence[str],
    group_of: NDArray[np.int64],
    distances: NDArray[np.float32],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> dict[str, Any]:
    """Write ``groups.parquet`` and return what the summary says of groups.

    `group_of` has the group of each usable image; `left` and `right` number those of each pair.
    """
    found = summarise_groups(distances, left, right, group_of, len(names))
    figures = {
        name: pa.array(numbers, mask=np.isnan(numbers))
        for name, numbers in (("mean", found.mean), ("std", found.std), ("stderr", found.stderr))
    }
    table = {
        "group": pa.array(names, pa.string()),
        "images": found.images,
        "pairs": found.pairs,
        **figures,
    }
    write_table(out / GROUPS, pa.table(table))
    return {
        "groups": {
            "count": len(names),
            "scored": int((found.pairs > 0).sum()),
            "mean": found.overall,
            "stderr": found.overall_stderr,
        }
    }


def group_lines(summary: dict[str, Any], out: Path) -> list[tuple[str, str]]:
    """Return the summary as lines for people: a name and a value each."""
    groups = summary["groups"]
    few = groups["count"] - groups["scored"]
    stderr = groups["stderr"]
    spread = "" if stderr is None else f" ± {stderr:.4f} (standard error over groups)"
    lines = dict(list_lines(summary, out))
    lines["mean distance"] = f"{summary['mean']:.4f} over all pairs"
    lines["results"] = f"{printable(str(out))} ({GROUPS}, {PAIRS}, images.parquet, {SUMMARY})"
    added = [
        ("groups", f"{groups['count']:,}" + (f" ({few:,} with fewer than two images)" * bool(few))),
        ("mean of groups", f"{groups['mean']:.4f}{spread}"),
    ]
    place = list(lines).index("mean distance")
    shown = list(lines.items())
    return [*shown[:place], *added, *shown[place:]]
