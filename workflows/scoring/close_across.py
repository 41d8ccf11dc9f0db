"""Find the close pairs across two collections, without their matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...pipeline.images.survey import ImageRecord
from ...pipeline.matrix.plan import MatrixPlan
from ...pipeline.runs.run import FinishedRun
from ...pipeline.sources.sources import Given
from ..session.collection import Collection
from ..session.dryrun import Forecast
from ..session.screen import Screen
from ..session.session import find_collection, open_session
from ..session.settings import Settings
from ..session.summary import Summary
from .close_pairs import ClosePairs, Question, reopen_question
from .compare import CrossPairs
from .job import run_job


def compare_close(
    first: Sequence[Given],
    second: Sequence[Given],
    out: Path,
    settings: Settings,
    screen: Screen,
    *,
    below: float | None = None,
    top_k: int | None = None,
) -> Summary | Forecast:
    """Find images of one collection that are close to images of another; write the run to `out`.

    The same call on the same folder goes on where it was interrupted. An image that stands in both
    collections is at distance 0 from itself, and is listed.

    Parameters
    ----------
    below
        List all pairs, of an image of each collection, that are closer than this.
    top_k
        List for each image of the first collection the nearest so many of the second; with `below`,
        those of them that are closer.

    Raises
    ------
    LpipstoreError
        No image of one of them can be used, the memory is too small, or `out` holds a different
        run.
    """
    question = Question(below, top_k)
    question.need_exact(settings)
    with open_session(settings, screen) as session:
        sides = [find_collection(side, session) for side in (first, second)]
        job = CloseAcross(question, CrossPairs(len(sides[0])))
        return run_job(job, sides[0] + sides[1], out, session)


@dataclass(frozen=True)
class CloseAcross(ClosePairs):
    """The pairs across two collections below a distance, or the nearest in the second.

    Attributes
    ----------
    whole
        The job that scores all of their pairs; it knows the sides.
    """

    title = "Compared"
    command = "compare"
    whole: CrossPairs

    @classmethod
    def reopen(
        cls, run: FinishedRun, records: Sequence[ImageRecord], folder: str, settings: Settings
    ) -> "CloseAcross":
        """Read the question and the sides from the manifest."""
        whole = CrossPairs.reopen(run, records, folder, settings)
        return cls(reopen_question(run), whole)

    def check(self, records: Sequence[ImageRecord]) -> None:
        """Raise `LpipstoreError` if no image of one of the sides can be used."""
        self.whole.check(records)

    def asked(self) -> Mapping[str, Any]:
        """Return where the second side begins, and the question."""
        return {**self.whole.asked(), **super().asked()}

    def plan(self, collection: Collection, settings: Settings) -> MatrixPlan:
        """Plan the matrix of all distances; raises `UsageError` where memory is too small."""
        return self.whole.plan(collection, settings)[1]

    def first_usable(self, collection: Collection) -> int:
        """Return how many images are of the first side and usable."""
        return self.whole.rows(collection)

    def sides(self, records: Sequence[ImageRecord]) -> list[str]:
        """Return "first" or "second" for each image."""
        return self.whole.sides(records)
