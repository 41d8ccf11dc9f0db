"""Score the pairs within each folder of a collection: the diversity of groups of images.

The mean over groups of the mean distance within each is the diversity score of conditional
generative models (Zhu et al. 2017, "Toward multimodal image-to-image translation", section 5).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, setting
from ...pipeline.common.budget import too_little
from ...pipeline.common.text import printable
from ...pipeline.images.survey import ImageRecord
from ...pipeline.pairlists.file import LINES_AT_ONCE, write_parts, write_table
from ...pipeline.pairlists.summary import summarise_groups
from ...pipeline.pairlists.table import PairList
from ...pipeline.runs.files import GROUPS, PAIRS
from ...pipeline.runs.run import FinishedRun
from ...pipeline.sources.names import absolute, folder_of, joined, without_scheme
from ...pipeline.sources.sources import Given
from ..session.dryrun import Forecast
from ..session.screen import Lines, Screen
from ..session.session import find_collection, open_session
from ..session.settings import Settings, parse_bytes
from ..session.summary import Summary, show_spread
from .job import run_job
from .listed import ListResults, Scored
from .pairlist import ListJob

_PAIR_BYTES = 160  # of one pair from the list to the tables, at most


def score_groups(
    sources: Sequence[Given],
    out: Path,
    settings: Settings,
    screen: Screen,
) -> Summary | Forecast:
    """Score all pairs of images that lie in the same folder and write the run to `out`.

    Every folder or archive in which images lie is a group. Returns the summary.

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

    title = "Pairs within folders"
    names: Sequence[str] = ()
    group_of: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(
        cls, records: Sequence[ImageRecord], settings: Settings, base: str = ""
    ) -> "WithinFolders":
        """List the pairs within folders; relative paths start from `base`.

        Raises
        ------
        UsageError
            The pairs do not fit in the memory of the settings.
        """
        names, group_of = _group(records, base)
        usable = np.array([not record.error for record in records], bool)
        counts = np.bincount(group_of[usable], minlength=len(names))
        _memory_of(counts, names, parse_bytes(settings.memory))
        return cls(_pairs_within(records, group_of, len(names)), False, names, group_of)

    @classmethod
    def reopen(
        cls, run: FinishedRun, records: Sequence[ImageRecord], folder: str, settings: Settings
    ) -> "WithinFolders":
        """List the pairs within the folders of the images, as they were before decoding."""
        surveyed = [replace(r, error=None) if r.content else r for r in records]
        return cls.of(surveyed, settings, str(run.manifest["folder"]))

    def besides(self) -> Mapping[str, str]:
        """Return how images are grouped."""
        return {"group_by": "folder"}

    def memory(self, settings: Settings) -> int:
        """Return the bytes that rows may take: the pairs take some, too."""
        return parse_bytes(settings.memory) - len(self.pairs.left) * _PAIR_BYTES

    def write(self, scored: Scored, results: ListResults, out: Path) -> ListResults:
        """Write ``groups.parquet`` and ``pairs.parquet``.

        Images that turned out to be unusable when they were decoded leave no pairs behind.
        """
        names, group_of, usable = self.names, self.group_of, scored.usable
        column = pa.array([printable(without_scheme(name)) for name in names], pa.string())
        lines = np.flatnonzero(usable)

        def parts() -> Iterator[pa.Table]:
            for start in range(0, len(lines), LINES_AT_ONCE):
                part = lines[start : start + LINES_AT_ONCE]
                folders = column.take(pa.array(group_of[scored.pairs.left[part]]))
                yield scored.table(part).append_column("group", folders)

        write_parts(out / PAIRS, parts())
        ends = scored.pairs.left, scored.pairs.right
        left, right = (scored.index[side[usable]] for side in ends)
        of_usable = group_of[scored.index >= 0]
        found = summarise_groups(scored.distances[usable], left, right, of_usable, len(names))
        columns = ("mean", found.mean), ("std", found.std), ("stderr", found.stderr)
        figures = {name: pa.array(values, mask=np.isnan(values)) for name, values in columns}
        table = {"group": column, "images": found.images, "pairs": found.pairs, **figures}
        write_table(out / GROUPS, pa.table(table))
        groups: Groups = {
            "count": len(names),
            "scored": int((found.pairs > 0).sum()),
            "mean": found.overall,
            "stderr": found.overall_stderr,
        }
        return GroupResults(**vars(results), groups=groups)


class Groups(TypedDict):
    """How many groups there are and have a mean, the mean of these means, and its error."""

    count: int
    scored: int
    mean: float | None
    stderr: float | None


@dataclass(frozen=True)
class GroupResults(ListResults):
    """The results of pairs within folders."""

    files: ClassVar[tuple[str, ...]] = (GROUPS, PAIRS)
    groups: Groups

    def distance_lines(self) -> Lines:
        """Return lines on groups and distances."""
        groups, stderr = self.groups, self.groups["stderr"]
        few = groups["count"] - groups["scored"]
        alone = f" ({few:,} with fewer than two images)" if few else ""
        spread = "" if stderr is None else f" ± {stderr:.4f} (standard error over groups)"
        return [
            ("groups", f"{groups['count']:,}{alone}"),
            ("mean of groups", f"{groups['mean']:.4f}{spread}"),
            ("mean distance", f"{self.figures.mean:.4f} over all pairs"),
            show_spread(self.figures),
        ]

    def mean_shown(self) -> str:
        """Return the mean of groups, and of how many."""
        return f"{self.groups['mean']:.4f} of {self.groups['scored']:,} groups"


def _group(records: Sequence[ImageRecord], base: str = "") -> tuple[list[str], NDArray[np.int64]]:
    """Return the folders in which images lie, and the number of each record's folder."""
    numbers: dict[str, int] = {}
    folders: list[str] = []
    group_of = np.empty(len(records), np.int64)
    for place, record in enumerate(records):
        folder = folder_of(record.path)
        number = numbers.setdefault(absolute(joined(base, folder)), len(folders))
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
    raise too_little(
        f"{pairs:,} pairs within folders",
        2 * pairs * _PAIR_BYTES,
        f"; {printable(names[largest])} alone has {counts[largest]:,} images, and without "
        f"{setting('group_by')} they make a matrix in any memory",
    )
