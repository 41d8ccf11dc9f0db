"""Find the close pairs of a collection, without its matrix.

`close_across` does the same across two collections; `searching` is what both carry out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.common.text import printable
from ...pipeline.distances.heads import Head, column_weights
from ...pipeline.features.pooled import PooledRows
from ...pipeline.features.pooling import useful_grids
from ...pipeline.images.survey import ImageRecord
from ...pipeline.matrix.plan import MatrixPlan
from ...pipeline.matrix.summary import Figures
from ...pipeline.runs.files import MANIFEST, PAIRS
from ...pipeline.runs.run import FinishedRun
from ...pipeline.search.results import SearchParts, finished_pairs, write_pairs
from ...pipeline.search.room import SearchRoom
from ...pipeline.search.search import Search
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
from .searching import find

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

    def need_exact(self, settings: Settings) -> None:
        """Raise `UsageError` if distances are to be fast: a search has to be exact."""
        if settings.precision != "exact":
            raise UsageError(
                f"{setting('below')} and {setting('top_k')} are exact: leave out "
                f"{setting('precision', 'fast')}"
            )


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
    question.need_exact(settings)
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
        SearchRoom(collection.features, parse_bytes(settings.memory))

    def work(self, collection: Collection, out: Path, settings: Settings) -> Work:
        """Return the work of all distances, which a search takes at most."""
        plan = self.plan(collection, settings)
        todo = set() if finished_pairs(out, collection.good) else set(plan.tiles())
        width = width_of(collection, settings)
        return matrix_work(plan, todo, width, collection.features, at_most=True)

    def plan(self, collection: Collection, settings: Settings) -> MatrixPlan:
        """Plan the matrix of all distances; raises `UsageError` where memory is too small."""
        return plan_pairs(collection, settings)

    def first_usable(self, collection: Collection) -> int | None:
        """Return how many images are of the first side and usable; None without sides."""
        return None

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
        features, question, clock = collection.features, self.question, session.clock
        search = Search(
            features,
            self.pooled(collection, head, session.screen),
            collection.contents(),
            column_weights(head, features.extractor.layout),
            parse_bytes(session.settings.memory),
            revisit=question.top_k is not None,
            first=self.first_usable(collection),
        )
        parts = SearchParts(out, collection.contents())
        done = finished_pairs(out, collection.good)
        if done is None:
            asked, report = (question.below, question.top_k), session.screen.report
            columns, tally = find(search, parts, clock, *asked, report)
            with clock("write"):
                write_pairs(out, collection.good, columns, tally, search.sides)
            done = columns["distance"], tally
        distances, tally = done
        parts.remove()  # here: whoever was killed between the table and this left them behind
        listed = len(distances)
        return CloseResults(
            pairs=search.sides.pairs,
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
