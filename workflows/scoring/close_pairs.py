"""Find the close pairs of a collection, without its matrix."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.common.progress import Report, Stopwatch
from ...pipeline.common.text import printable
from ...pipeline.distances.heads import Head, column_weights
from ...pipeline.features.pooled import PooledRows
from ...pipeline.features.pooling import useful_grids
from ...pipeline.images.survey import ImageRecord
from ...pipeline.matrix.summary import Figures
from ...pipeline.runs.files import MANIFEST, PAIRS
from ...pipeline.runs.run import FinishedRun
from ...pipeline.search.cascade import Tally
from ...pipeline.search.close import Close
from ...pipeline.search.results import SearchParts, finished_pairs, write_pairs
from ...pipeline.search.search import Search, rows_that_fit
from ...pipeline.search.topk import SAVES, Neighbours
from ...pipeline.sources.sources import Given
from ..session.collection import STAGES, Collection
from ..session.dryrun import Forecast, width_of
from ..session.estimate import Work, matrix_work
from ..session.screen import Lines, Screen
from ..session.session import Session, find_collection, open_session
from ..session.settings import Settings, parse_bytes
from ..session.summary import Results, Summary, show_quantiles
from .all_pairs import need_two, plan_pairs
from .job import Heads, Job, run_job

Columns = dict[str, NDArray[Any]]

STAGES_OF_SEARCH = (*STAGES[:3], "pool", *STAGES[3:])


@dataclass(frozen=True)
class Question:
    """Which pairs are close: those nearer than `below`, the `top_k` nearest of each image, or both.

    Raises
    ------
    UsageError
        A number that cannot be.
    """

    below: float | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.below is not None and not 0 <= self.below < math.inf:
            raise UsageError(f"{setting('below')} takes a distance such as 0.1, not {self.below}")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"{setting('top_k')} takes a number from 1 on, not {self.top_k}")


def reopen_question(run: FinishedRun) -> Question:
    """Return what a run of close pairs was asked.

    Raises
    ------
    LpipstoreError
        The manifest is damaged.
    """
    below, top_k = (run.manifest.get(name) for name in ("below", "top_k"))
    if not isinstance(below, int | float | None) or not isinstance(top_k, int | None):
        raise LpipstoreError(
            f"{printable(str(run.path / MANIFEST))} is damaged: no numbers under below and top_k"
        )
    return Question(below, top_k)


def find_close(
    sources: Sequence[Given],
    out: Path,
    settings: Settings,
    screen: Screen,
    *,
    below: float | None = None,
    top_k: int | None = None,
) -> Summary | Forecast:
    """Find close pairs of images and write the run to the folder `out`.

    The same call on the same folder goes on where it was interrupted.

    Parameters
    ----------
    below
        List all pairs that are closer than this.
    top_k
        List the nearest so many images of each image; with `below`, those of them that are closer.

    Raises
    ------
    LpipstoreError
        Fewer than two images can be used, the memory is too small, or `out` holds a different run.
    """
    question = Question(below, top_k)
    if settings.precision != "exact":
        raise UsageError(
            f"{setting('below')} and {setting('top_k')} are exact: leave out "
            f"{setting('precision', 'fast')}"
        )
    with open_session(settings, screen) as session:
        records = find_collection(sources, session)
        return run_job(ClosePairs(question), records, out, session)


@dataclass(frozen=True)
class ClosePairs(Job):
    """The pairs below a distance, or the nearest of each image."""

    title = "Close pairs"
    stages = STAGES_OF_SEARCH
    together = False  # a search reads the rows that the bounds of its head leave
    question: Question

    @classmethod
    def reopen(
        cls, run: FinishedRun, records: Sequence[ImageRecord], folder: str, settings: Settings
    ) -> "ClosePairs":
        """Read the question from the manifest."""
        return cls(reopen_question(run))

    def check(self, records: Sequence[ImageRecord]) -> None:
        """Raise `LpipstoreError` if fewer than two images can be used."""
        need_two(records)

    def asked(self) -> Mapping[str, Any]:
        """Return the question."""
        return vars(self.question)

    def check_memory(self, collection: Collection, settings: Settings) -> None:
        """Raise `UsageError` if the memory is too small for a few rows."""
        collection.head(settings)
        rows_that_fit(collection.row_bytes(), parse_bytes(settings.memory))

    def work(self, collection: Collection, out: Path, settings: Settings) -> Work:
        """Return the work of all distances, which a search takes at most."""
        plan = plan_pairs(collection, settings)
        todo = set() if finished_pairs(out, collection.good) else set(plan.tiles())
        return matrix_work(plan, todo, width_of(collection, settings), at_most=True)

    def pooled(self, collection: Collection, head: Head, screen: Screen) -> PooledRows:
        """Return the pooled rows that bound distances; warn of a head that nothing bounds."""
        if head.nonnegative:
            grids = useful_grids(collection.features.extractor.layout)
            return PooledRows(collection.features, grids)
        screen.warn(
            "the head has weights below 0, so that nothing bounds a distance from below: the "
            "distances of all pairs are computed"
        )
        return PooledRows(collection.features, ())

    def score(self, collection: Collection, heads: Heads, session: Session) -> list[Results]:
        """Search under each head, write the tables; return the results."""
        return [self._score(collection, head, out, session) for head, out in heads]

    def _score(
        self, collection: Collection, head: Head, out: Path, session: Session
    ) -> "CloseResults":
        features, question = collection.features, self.question
        search = Search(
            features,
            self.pooled(collection, head, session.screen),
            collection.contents(),
            column_weights(head, features.extractor.layout),
            parse_bytes(session.settings.memory),
            revisit=question.top_k is not None,
        )
        parts = SearchParts(out, collection.contents())
        done = finished_pairs(out, collection.good)
        report = session.screen.report
        distances, tally = done or _search(search, question, collection, parts, out, report)
        parts.remove()  # here: whoever was killed between the table and this left them behind
        listed = len(distances)
        return CloseResults(
            pairs=search.count * (search.count - 1) // 2,
            left=tally.left,
            listed=listed,
            arithmetic=tally.arithmetic,
            arithmetic_of_all=search.arithmetic,
            figures=Figures.of(distances.astype(np.float64), None) if listed else Figures(),
        )


@dataclass(frozen=True)
class CloseResults(Results):
    """The results of a search.

    Attributes
    ----------
    pairs
        All pairs of the images.
    left
        Pairs that each bound left to the next.
    listed
        Pairs found, which the figures are of; they have no standard error, as the pairs were
        chosen by their distances.
    arithmetic, arithmetic_of_all
        Numbers that took part, and how many do in all distances.
    """

    files: ClassVar[tuple[str, ...]] = (PAIRS,)
    pairs: int
    left: Mapping[str, int]
    listed: int
    arithmetic: int
    arithmetic_of_all: int
    figures: Figures

    def lines(self) -> Lines:
        """Return the results as lines for people."""
        left = ", ".join(f"{pairs:,} after {level}" for level, pairs in self.left.items())
        share = self.arithmetic / max(1, self.arithmetic_of_all)
        return [
            ("pairs", f"{self.pairs:,}{left and f' ({left})'}"),
            ("listed", f"{self.listed:,}"),
            *([("distances", show_quantiles(self.figures))] if self.listed else []),
            ("arithmetic", f"{share:.1%} of that for all distances"),
        ]

    def headline(self) -> str:
        """Return how many pairs were found."""
        return f"{self.listed:,} close of {self.pairs:,} pairs"


def _search(
    search: Search,
    question: Question,
    collection: Collection,
    parts: SearchParts,
    out: Path,
    report: Report,
) -> tuple[NDArray[np.float32], Tally]:
    """Find what is not found yet and write the table; return its distances and what it took."""
    clock = collection.features.clock
    limit = math.inf if question.below is None else question.below
    if question.top_k is None:
        columns, tally = all_below(search, parts, clock, limit, report)
    else:
        most = min(question.top_k, search.count - 1)
        tried = Tally()
        if search.pays(most, limit, tried):
            columns, tally = _nearest(search, parts, clock, most, limit, report)
        else:
            columns, tally = _nearest_by_matrix(search, parts, most, limit, report)
        tally.add(tried)
    with clock("write"):
        write_pairs(out, collection.good, columns, tally)
    return columns["distance"], tally


def all_below(
    search: Search, parts: SearchParts, clock: Stopwatch, below: float, report: Report
) -> tuple[Columns, Tally]:
    """Find the pairs closer than `below`, part by part, sorted by distance.

    By bounds as long as they pay, the other parts out of the matrix. Where that changes is written
    down, so that an interrupted search goes on in the same way.
    """
    found: list[tuple[Columns, Tally]] = []
    known, first = parts.read("matrix"), search.parts
    if known is not None:
        first, given_up = int(known[0]["first"]), known[1]
    else:
        given_up = Tally()
        first = search.parts if search.bounds_pay(below, given_up) else 0
    while len(found) < first:
        number = len(found)
        report("parts", number, search.parts)
        part = parts.read(str(number))
        if part is None:
            taken = Tally()
            close = search.try_below(number, below, taken)
            if close is None:
                given_up.arithmetic += taken.arithmetic
                first = number
                break
            part = _keep(parts, number, close, taken, clock)
        found.append(part)
        if not search.part_paid(number, part[1]):
            first = number + 1
    if first < search.parts:
        parts.write("matrix", {"first": np.array(first)}, given_up)
        found += _below_by_matrix(search, parts, clock, first, below, report)
    report("parts", search.parts, search.parts)
    tally = Tally()
    for taken in (*(part[1] for part in found), given_up):
        tally.add(taken)
    columns = {name: np.concatenate([part[0][name] for part in found]) for name in Close._fields}
    order = np.lexsort((columns["j"], columns["i"], columns["distance"]))
    return {name: values[order] for name, values in columns.items()}, tally


def _below_by_matrix(
    search: Search,
    parts: SearchParts,
    clock: Stopwatch,
    first: int,
    below: float,
    report: Report,
) -> list[tuple[Columns, Tally]]:
    """Find the same for the parts from `first` on: candidates tile by tile, then part by part."""
    saved = 0

    def save(pairs: NDArray[np.int64], tiles: NDArray[np.int64]) -> None:
        nonlocal saved
        parts.write(f"tiles-{saved}", {"pairs": pairs, "tiles": tiles}, Tally())
        saved += 1

    candidates = search.candidates(first, below, save)
    while (known := parts.read(f"tiles-{saved}")) is not None:
        candidates.add(known[0]["pairs"], known[0]["tiles"])
        saved += 1
    tally = search.below_by_matrix(first, below, candidates, report)
    pairs, found = candidates.pairs(), []
    for number in range(first, search.parts):
        report("parts", number, search.parts)
        part = parts.read(str(number))
        if part is None:
            part = _keep(parts, number, *search.decide(number, pairs, below), clock)
        found.append(part)
    found[0][1].add(tally)
    return found


def _keep(
    parts: SearchParts, number: int, close: Close, tally: Tally, clock: Stopwatch
) -> tuple[Columns, Tally]:
    """Write down what was found in a part; return it as it is read again."""
    part = dict(close._asdict()), tally
    with clock("write"):
        parts.write(str(number), *part)
    return part


def _nearest(
    search: Search,
    parts: SearchParts,
    clock: Stopwatch,
    most: int,
    below: float,
    report: Report,
) -> tuple[Columns, Tally]:
    """Find the `most` nearest of each image, step by step, sorted by image and rank."""
    known = parts.read("nearest")
    found, tally, done = Neighbours(search.count, most), Tally(), 0
    if known is not None:
        found = Neighbours(search.count, most, known[0]["codes"])
        tally, done = known[1], int(known[0]["done"])
    every = -(-search.steps // SAVES)
    for step in range(done, search.steps):
        report("steps", step, search.steps)
        tally.add(search.nearest(step, found, below))
        if (step + 1) % every == 0:
            with clock("write"):
                parts.write("nearest", {"codes": found.codes, "done": np.array(step + 1)}, tally)
    report("steps", search.steps, search.steps)
    return _closer(found, below), tally


def _nearest_by_matrix(
    search: Search, parts: SearchParts, most: int, below: float, report: Report
) -> tuple[Columns, Tally]:
    """Find the same out of all distances, tile by tile."""
    known = parts.read("tiles")
    found, done = Neighbours(search.count, most), set[tuple[int, int]]()
    if known is not None:
        found = Neighbours(search.count, most, known[0]["codes"])
        done = set(map(tuple, known[0]["done"].tolist()))

    def save() -> None:
        tiles = np.array(sorted(done), np.int64).reshape(-1, 2)
        parts.write("tiles", {"codes": found.codes, "done": tiles}, Tally())

    tally = search.by_matrix(found, done, save, report)
    return _closer(found, below), tally


def _closer(found: Neighbours, below: float) -> Columns:
    """Return the table of neighbours that are closer than `below`."""
    columns = found.table()
    close = columns["distance"].astype(np.float64) < below
    return {name: values[close] for name, values in columns.items()}
