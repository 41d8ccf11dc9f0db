"""Compare two collections of images."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.common.progress import Stopwatch
from ...pipeline.common.text import printable
from ...pipeline.images.survey import ImageRecord
from ...pipeline.matrix.plan import MatrixPlan, plan_matrix
from ...pipeline.matrix.summary import cross_summary
from ...pipeline.pairlists.file import write_table
from ...pipeline.pairlists.reopen import reopen_pairs
from ...pipeline.pairlists.table import PairList
from ...pipeline.runs.files import MANIFEST, PAIRS
from ...pipeline.runs.reopen import reading
from ...pipeline.runs.run import FinishedRun
from ...pipeline.sources.sources import Found, Given, Sources, name_of
from ..session.collection import STAGES, Collection, check_choice, need_images
from ..session.dryrun import Forecast, width_of
from ..session.estimate import Work, matrix_work
from ..session.preflight import warn_of_matrix
from ..session.screen import Lines, Screen
from ..session.session import Session, find_collection, open_session
from ..session.settings import Settings, parse_bytes, source_options
from ..session.summary import Results, Summary
from .all_pairs import MatrixResults, score_matrices_of, tiles_to_do
from .job import Heads, Job, run_job
from .listed import ListResults, Scored
from .pairlist import ListJob, need_same_pairs, survey_list

Loners = list[list[tuple[str, str]]]
"""Names and paths of the images of either collection that have no namesake in the other."""

MATCHES = ("name", "stem")
_COUPLES = ("scored", "failed")  # what a pair is called in ``pairs.parquet``
_ALONE = (("path_i", "only in first"), ("path_j", "only in second"))  # and the others


def compare_folders(
    first: Sequence[Given],
    second: Sequence[Given],
    out: Path,
    settings: Settings,
    screen: Screen,
) -> Summary | Forecast:
    """Score each image of one collection against each of another; write the run to `out`.

    The matrix has a row for each image of the first and a column for each of the second. Returns
    the summary.

    Raises
    ------
    LpipstoreError
        No image of one of them can be used, the memory is too small, or `out` holds a different
        run.
    """
    with open_session(settings, screen) as session:
        sides = [find_collection(side, session) for side in (first, second)]
        return run_job(CrossPairs(len(sides[0])), sides[0] + sides[1], out, session)


@dataclass(frozen=True)
class CrossPairs(Job):
    """Each of the `first` images against each of the others."""

    title = "Compared"
    command = "compare"
    first: int

    @classmethod
    def reopen(
        cls, run: FinishedRun, records: Sequence[ImageRecord], folder: str, settings: Settings
    ) -> "CrossPairs":
        """Read from the manifest how many images are of the first collection."""
        first = run.manifest.get("first")
        if not isinstance(first, int) or not 0 < first < len(records):
            raise LpipstoreError(
                f"{printable(str(run.path / MANIFEST))} is damaged: {first} of {len(records):,} "
                "images would be of the first folder"
            )
        return cls(first)

    def check(self, records: Sequence[ImageRecord]) -> None:
        """Raise `LpipstoreError` if no image of one of the sides can be used."""
        for side in (records[: self.first], records[self.first :]):
            need_images(side)

    def asked(self) -> Mapping[str, bool | int]:
        """Return where the second side begins."""
        return {"paired": False, "first": self.first}

    def check_memory(self, collection: Collection, settings: Settings) -> None:
        """Raise `UsageError` if the memory does not hold two blocks of rows."""
        self.plan(collection, settings)

    def work(self, collection: Collection, out: Path, settings: Settings) -> Work:
        """Return the tiles that are left."""
        down, plan = self.plan(collection, settings)
        todo = tiles_to_do(collection, down, plan, out, settings)
        width = width_of(collection, settings)
        return matrix_work(plan, todo, width, collection.features)

    def warn(self, collection: Collection, out: Path, settings: Settings, screen: Screen) -> None:
        """Warn of a large matrix."""
        warn_of_matrix(self.first * (len(collection.records) - self.first), out, screen)

    def sides(self, records: Sequence[ImageRecord]) -> list[str]:
        """Return "first" or "second" for each image."""
        return ["first"] * self.first + ["second"] * (len(records) - self.first)

    def score(self, collection: Collection, heads: Heads, session: Session) -> list[Results]:
        """Score a matrix under each head; return the results."""
        down, results = self.rows(collection), list[Results]()
        for matrix, error in score_matrices_of(collection, down, heads, session):
            with session.clock("score"):
                figures = cross_summary(matrix.band, matrix.array.shape, matrix.tile)
            across, precision = matrix.array.shape[1], session.settings.precision
            found = CrossResults(down * across, precision, error, figures, down, across)
            results.append(found)
        return results

    def rows(self, collection: Collection) -> int:
        """Return the rows of the matrix: the usable images of the first side."""
        return _usable(collection.records[: self.first])

    def plan(self, collection: Collection, settings: Settings) -> tuple[int, MatrixPlan]:
        """Return the rows of the matrix, and its plan."""
        records = collection.records
        down, across = (_usable(side) for side in (records[: self.first], records[self.first :]))
        memory = parse_bytes(settings.memory)
        plan = plan_matrix(down, collection.row_bytes(), memory, columns=across)
        return down, collection.need_room(plan)


def _usable(records: Sequence[ImageRecord]) -> int:
    return sum(not record.error for record in records)


@dataclass(frozen=True)
class CrossResults(MatrixResults):
    """The results of a matrix with `first` rows and `second` columns."""

    first: int
    second: int

    def pairs_shown(self) -> str:
        """Return the shape of the matrix."""
        return f"{self.first:,} × {self.second:,}"


def compare_paired(
    first: Sequence[Given],
    second: Sequence[Given],
    out: Path,
    settings: Settings,
    screen: Screen,
    *,
    match: str = "name",
    statistics: bool = False,
) -> Summary | Forecast:
    """Score each image of one collection against its namesake in another; write the run to `out`.

    Namesakes have the same path within their folders or archives, subfolders and suffix included,
    or with `match` "stem" all but the suffix. Images without one are listed in ``pairs.parquet``
    after the pairs, and counted in the summary, which this returns.

    Raises
    ------
    UsageError
        One of the two is a single image, or two images of one of them have the same stem.
    LpipstoreError
        No image of one of them can be used, the memory is too small, or `out` holds a different
        run.
    """
    check_choice("match", match, MATCHES)
    clock, sources = Stopwatch(*STAGES), Sources(source_options(settings))
    with clock("hash"):
        sides = [_find(side, sources) for side in (first, second)]
        naming = _by_name if match == "name" else _by_stem
        names = [naming(found) for found in sides]
    common = [name for name in names[0] if name in names[1]]
    alone = [
        [(name, path) for name, path in side.items() if name not in other]
        for side, other in (names, names[::-1])
    ]
    missed = _same_stems(alone) if match == "name" else 0
    if not common:
        raise LpipstoreError(_strangers((first, second), names, match, missed))
    if missed:
        screen.warn(
            f"{len(common):,} images have a namesake, and {missed:,} more would have one but for "
            f"the suffix, as a.png and a.jpg: {setting('match', 'stem')} pairs them"
        )
    pairs = _pair([(names[0][name], names[1][name]) for name in common], common)
    unreadable = [ImageRecord(path, error=why) for found in sides for path, why in found.unreadable]

    with open_session(settings, screen, clock, sources=sources) as session:
        records = survey_list(pairs.paths, session) + unreadable
        return run_job(Namesakes(pairs, statistics, alone, match), records, out, session)


@dataclass(frozen=True)
class Namesakes(ListJob):
    """Images of one collection against those of the same name in another.

    Attributes
    ----------
    alone
        For each of the two, the images without a namesake: (name, path).
    match
        One of `MATCHES`.
    """

    title = "Compared"
    command = "compare"
    alone: Loners = field(default_factory=lambda: [[], []])
    match: str = "name"

    @classmethod
    def reopen(
        cls, run: FinishedRun, records: Sequence[ImageRecord], folder: str, settings: Settings
    ) -> "Namesakes":
        """Read pairs and loners from the tables of the run."""
        pairs, alone = reopen_couples(run, records, folder)
        need_same_pairs(run, pairs)
        match = str(run.manifest.get("match", "name"))
        return cls(pairs, bool(run.manifest.get("statistics")), alone, match)

    def besides(self) -> Mapping[str, bool | str]:
        """Return how images were matched."""
        return {"paired": True, **({} if self.match == "name" else {"match": self.match})}

    def write(self, scored: Scored, results: ListResults, out: Path) -> ListResults:
        """Write the pairs and, after them, the images without a namesake."""
        write_table(out / PAIRS, _table(scored, self.alone))
        first, second = map(len, self.alone)
        return PairedResults(**vars(results), only_in_first=first, only_in_second=second)


@dataclass(frozen=True)
class PairedResults(ListResults):
    """The results of namesakes, and how many images of each collection have none."""

    only_in_first: int
    only_in_second: int

    def besides(self) -> Lines:
        """Return the images without a namesake as a line for people."""
        alone = (
            f"{self.only_in_first:,} only in the first folder, "
            f"{self.only_in_second:,} only in the second"
        )
        return [("no partner", alone)]


def reopen_couples(
    run: FinishedRun, records: Sequence[ImageRecord], folder: str
) -> tuple[PairList, Loners]:
    """Return the pairs of a run of namesakes, and the images that have none.

    `records` and `folder` are as for `Job.reopen`.

    Raises
    ------
    LpipstoreError
        The tables of the run are damaged.
    """
    with reading(run, PAIRS):
        status = run.pairs.column("status")
        alone = []
        for column, where in _ALONE:
            part = run.pairs.filter(pa.compute.equal(status, where))
            names, paths = (part.column(name).to_pylist() for name in ("name", column))
            alone.append(
                [(n, os.path.join(folder, path)) for n, path in zip(names, paths, strict=True)]
            )
        couples = run.pairs.filter(pa.compute.is_in(status, pa.array(_COUPLES)))
    return reopen_pairs(run, records, couples), alone


def _find(side: Sequence[Given], sources: Sources) -> Found:
    for place in side:
        if isinstance(place, str | os.PathLike) and sources.is_one_image(os.fspath(place)):
            raise UsageError(
                f"{name_of(place)} is not a folder: compare --paired takes two folders and "
                "pairs images of the same name"
            )
    return sources.find(side)


def _by_name(found: Found) -> dict[str, str]:
    names: dict[str, str] = {}
    for name, path in zip(found.within, found.names, strict=True):
        other = names.setdefault(name, path)
        if other != path:
            raise UsageError(
                f"{printable(other)} and {printable(path)} are both called {printable(name)}: "
                "remove one of them, or compare the archives one by one"
            )
    return names


def _by_stem(found: Found) -> dict[str, str]:
    stems: dict[str, str] = {}
    for name, path in _by_name(found).items():
        other = stems.setdefault(_stem(name), path)
        if other != path:
            raise UsageError(
                f"{setting('match', 'stem')} cannot tell {printable(other)} from "
                f"{printable(path)}: remove one of them, or pair by {setting('match', 'name')}"
            )
    return stems


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _same_stems(alone: Loners) -> int:
    """Count the images without a namesake that have one but for the suffix."""
    first, second = ({_stem(name) for name, _ in side} for side in alone)
    return len(first & second)


def _strangers(
    sides: tuple[Sequence[Given], Sequence[Given]],
    names: list[dict[str, str]],
    match: str,
    missed: int,
) -> str:
    told = [
        f"{', '.join(map(name_of, places))} has {len(side):,} images"
        + (f", such as {printable(next(iter(side)))}" if side else "")
        for places, side in zip(sides, names, strict=True)
    ]
    stem = f"; {setting('match', 'stem')} would pair {missed:,} of them" if missed else ""
    return f"no two images have the same {match}: {'; '.join(told)}{stem}"


def _pair(couples: list[tuple[str, str]], names: list[str]) -> PairList:
    numbers: dict[str, int] = {}
    left, right = (
        np.array([numbers.setdefault(couple[side], len(numbers)) for couple in couples], np.int64)
        for side in (0, 1)
    )
    return PairList(list(numbers), left, right, pa.table({"name": list(map(printable, names))}))


def _table(scored: Scored, alone: Loners) -> pa.Table:
    """Return the pairs and, after them, the images without a partner; `status` tells which."""
    table = scored.table().append_column("name", scored.pairs.extra["name"])
    status = np.where(scored.usable, *_COUPLES)
    parts = [table.append_column("status", pa.array(status, pa.string()))]
    for side, (column, where) in zip(alone, _ALONE, strict=True):
        part = {
            column: pa.array([printable(path) for _, path in side], pa.string()),
            "name": pa.array([printable(name) for name, _ in side], pa.string()),
            "status": pa.array([where] * len(side), pa.string()),
        }
        parts.append(pa.table(part))
    return pa.concat_tables(parts, promote_options="default")
