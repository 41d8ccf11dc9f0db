"""Score all pairs of a collection."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...cache.errors import LpipstoreError
from ...pipeline.common.text import printable
from ...pipeline.distances.heads import Head, column_weights
from ...pipeline.images.survey import ImageRecord
from ...pipeline.matrix.plan import MatrixPlan, plan_matrix
from ...pipeline.matrix.score import MatrixTarget, fast_error, score_matrices
from ...pipeline.matrix.summary import Figures, pair_summary
from ...pipeline.runs.files import DISTANCES
from ...pipeline.runs.run import FinishedRun
from ...pipeline.runs.zarr_array import MatrixFile
from ...pipeline.sources.sources import Given
from ..session.collection import Collection
from ..session.dryrun import Forecast, width_of
from ..session.estimate import Work, matrix_work
from ..session.manifest import head_attributes
from ..session.preflight import warn_of_matrix
from ..session.screen import Screen
from ..session.session import Session, find_collection, open_session
from ..session.settings import Settings, parse_bytes
from ..session.summary import Results, Summary
from .job import Heads, Job, run_job


def score_pairs(
    sources: Sequence[Given], out: Path, settings: Settings, screen: Screen
) -> Summary | Forecast:
    """Score all pairs of the images in `sources` and write the run to the folder `out`.

    The same call on the same folder goes on where it was interrupted. Returns the summary that is
    also written to ``summary.json``.

    Raises
    ------
    LpipstoreError
        Fewer than two images can be used, the memory is too small, or `out` holds a different run.
    """
    with open_session(settings, screen) as session:
        records = find_collection(sources, session)
        return run_job(AllPairs(), records, out, session)


class AllPairs(Job):
    """All pairs of one collection."""

    title = "All pairs"

    @classmethod
    def reopen(
        cls, run: FinishedRun, records: Sequence[ImageRecord], folder: str, settings: Settings
    ) -> "AllPairs":
        """Return the job; nothing but the images decides it."""
        return AllPairs()

    def check(self, records: Sequence[ImageRecord]) -> None:
        """Raise `LpipstoreError` if fewer than two images can be used."""
        need_two(records)

    def check_memory(self, collection: Collection, settings: Settings) -> None:
        """Raise `UsageError` if the memory does not hold two blocks of rows."""
        plan_pairs(collection, settings)

    def work(self, collection: Collection, out: Path, settings: Settings) -> Work:
        """Return the tiles that are left."""
        plan = plan_pairs(collection, settings)
        todo = tiles_to_do(collection, None, plan, out, settings)
        width = width_of(collection, settings)
        return matrix_work(plan, todo, width, collection.features)

    def warn(self, collection: Collection, out: Path, settings: Settings, screen: Screen) -> None:
        """Warn of a large matrix."""
        warn_of_matrix(plan_pairs(collection, settings).area, out, screen)

    def score(self, collection: Collection, heads: Heads, session: Session) -> list[Results]:
        """Score a matrix under each head; return the results."""
        count, results = len(collection.good), list[Results]()
        for matrix, error in score_matrices_of(collection, None, heads, session):
            with session.clock("score"):
                figures = pair_summary(matrix.band, count, matrix.tile)
            pairs = count * (count - 1) // 2
            results.append(MatrixResults(pairs, session.settings.precision, error, figures))
        return results


@dataclass(frozen=True)
class MatrixResults(Results):
    """The results of a matrix."""

    files: ClassVar[tuple[str, ...]] = (DISTANCES,)
    pairs: int
    precision: str
    precision_error: float | None
    figures: Figures


def plan_pairs(collection: Collection, settings: Settings) -> MatrixPlan:
    """Plan the matrix of all pairs; raises `UsageError` where memory is too small."""
    count, memory = len(collection.good), parse_bytes(settings.memory)
    return collection.need_room(plan_matrix(count, collection.row_bytes(), memory))


def score_matrices_of(
    collection: Collection, first: int | None, heads: Heads, session: Session
) -> list[tuple[MatrixFile, float | None]]:
    """Score what is not scored yet of a matrix under each head, into the folder of each.

    `first` of the collection's usable images are the rows, the others the columns; None stands for
    all pairs. Returns the matrices, each with the error of fast distances, None for exact ones.
    """
    settings, screen = session.settings, session.screen
    features, contents = collection.features, collection.contents()
    down, across = contents[:first], None if first is None else contents[first:]
    plan = plan_matrix(
        len(down),
        collection.row_bytes(),
        parse_bytes(settings.memory),
        columns=None if across is None else len(across),
    )
    collection.warn_of_repeats(plan, down, across, screen)
    targets, files = [], []
    for head, out in heads:
        files.append(_matrix_file(collection, first, plan, head, out, settings))
        targets.append(MatrixTarget(column_weights(head, features.extractor.layout), files[-1]))
    fast = settings.precision == "fast"
    score_matrices(features, down, across, targets, plan, screen.report, fast=fast)
    errors = [
        fast_error(features, contents, target.weights) if fast else None for target in targets
    ]
    collection.warn_of_trouble(screen)  # the store may have filled since
    return list(zip(files, errors, strict=True))


def tiles_to_do(
    collection: Collection, first: int | None, plan: MatrixPlan, out: Path, settings: Settings
) -> set[tuple[int, int]]:
    """Return the tiles that the folder `out` lacks of a matrix; nothing is written."""
    todo = set(plan.tiles())
    if (out / DISTANCES / "zarr.json").exists():
        head = collection.head(settings)
        matrix = _matrix_file(collection, first, plan, head, out, settings)
        todo = {tile for tile in todo if not matrix.done(*tile)}
    return todo


def _matrix_file(
    collection: Collection,
    first: int | None,
    plan: MatrixPlan,
    head: Head,
    out: Path,
    settings: Settings,
) -> MatrixFile:
    """Create the matrix of a run, or open the one that it has begun."""
    contents, recipe = collection.contents(), collection.features.extractor.spec.recipe
    down, across = contents[:first], None if first is None else contents[first:]
    attributes = {**head_attributes(head, settings.precision), **recipe}
    return MatrixFile(out, down, across, plan.tile, attributes)


def need_two(records: Sequence[ImageRecord]) -> None:
    """Raise `LpipstoreError` with the reasons if fewer than two images can be used."""
    good = [record for record in records if not record.error]
    if len(good) < 2:
        reasons = "".join(
            f"\n  {printable(record.path)}: {record.error}" for record in records if record.error
        )
        raise LpipstoreError(
            f"pairs need at least two images, and {len(good)} can be used" + reasons
        )
