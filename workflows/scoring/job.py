"""One way to make a run: the contract of a kind of run, and the function that runs any of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from ...pipeline.common.text import printable
from ...pipeline.distances.heads import Head
from ...pipeline.features.pooled import PooledRows
from ...pipeline.images.survey import ImageRecord
from ...pipeline.runs.files import SUMMARY, write_json
from ...pipeline.runs.run import FinishedRun
from ...pipeline.runs.tables import write_images
from ...pipeline.runs.writing import writing_run
from ..session.collection import Collection
from ..session.dryrun import Forecast, forecast, look_at
from ..session.estimate import Work
from ..session.manifest import make_manifest
from ..session.preflight import warn_of_forwards
from ..session.screen import Screen
from ..session.session import Session, make_collection
from ..session.settings import Settings
from ..session.summary import Results, Summary

Heads = Sequence[tuple[Head, Path]]
"""Heads, each with the folder of its run."""


class Job(ABC):
    """One kind of run. `run_job` calls the methods in the order in which they stand here.

    A new kind is one file with a subclass, one line in `lpipstore.workflows.scoring.kinds`, and the
    name that `lpipstore.pipeline.runs.reopen.reopen_kind` gives its manifests.

    Attributes
    ----------
    title
        What people read above the summary.
    command
        The command that makes such runs, as the manifest names it.
    stages
        Stages that only this kind has; the summary counts their seconds, 0 if nothing was done.
    together
        Whether several heads are scored from the same rows; else each is scored by itself.
    """

    title: ClassVar[str]
    command: ClassVar[str] = "pairs"
    stages: ClassVar[tuple[str, ...]] = ()
    together: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def reopen(
        cls, run: FinishedRun, records: Sequence[ImageRecord], folder: str, settings: Settings
    ) -> Self:
        """Return the job that made a finished run, to make it again or to score other heads.

        Parameters
        ----------
        records
            The images of the run, with its errors.
        folder
            Where the relative paths of the run's tables start; "" leaves them as they are.
        settings
            Those of the run, with the memory of this call.

        Raises
        ------
        UsageError
            The memory is too small for the job itself.
        LpipstoreError
            The files of the run are damaged.
        """

    def rescored(self, run: FinishedRun, *, from_rows: bool) -> Self:
        """Return the job for other heads: from what the run has kept, or `from_rows`."""
        return self

    @abstractmethod
    def check(self, records: Sequence[ImageRecord]) -> None:
        """Raise `LpipstoreError` if too few images can be used.

        Called twice: after the survey, and again once all images were decoded.
        """

    def asked(self) -> Mapping[str, Any]:
        """Return what the manifest holds besides the collection and the settings."""
        return {}

    @abstractmethod
    def check_memory(self, collection: Collection, settings: Settings) -> None:
        """Raise `UsageError` if ``--memory`` is too small."""

    @abstractmethod
    def work(self, collection: Collection, out: Path, settings: Settings) -> Work:
        """Return the work that is left to do in the folder `out`, for ``--dry-run``."""

    def warn(  # noqa: B027 - a kind may have nothing to warn of
        self, collection: Collection, out: Path, settings: Settings, screen: Screen
    ) -> None:
        """Warn of what the run will cost besides forwards; by default of nothing."""

    def pooled(self, collection: Collection, head: Head, screen: Screen) -> PooledRows | None:
        """Return the pooled rows that are needed besides the rows; None if no rows are needed."""
        return PooledRows(collection.features, ())

    def extract(self, collection: Collection, pooled: PooledRows) -> int:
        """Compute the rows that the store lacks; return the number of hits."""
        hits = pooled.ensure(collection.contents())
        collection.mark_failures()
        return hits

    def sides(self, records: Sequence[ImageRecord]) -> Sequence[str] | None:
        """Return the side of the matrix of each image; None if there are no sides."""
        return None

    @abstractmethod
    def score(self, collection: Collection, heads: Heads, session: Session) -> list[Results]:
        """Score what is not scored yet under each head, write the distances; return the results.

        A run has one head, that of the settings; `rescore` has others.
        """


def run_job(
    job: Job, records: list[ImageRecord], out: Path, session: Session
) -> Summary | Forecast:
    """Run a job on surveyed images and write the run to the folder `out`.

    The same job on the same folder continues where it was interrupted. With ``--dry-run`` nothing
    is written, and the forecast is returned.

    Returns
    -------
    Summary or Forecast
        What is also written to ``summary.json``, or what would be done.

    Raises
    ------
    UsageError
        The memory is too small, or the folder holds a different run or other files.
    LpipstoreError
        Too few images can be used, or results cannot be written.
    """
    settings, screen = session.settings, session.screen
    job.check(records)
    collection = make_collection(records, session)
    manifest = {**make_manifest(job.command, collection, settings), **job.asked()}
    if settings.dry_run:
        look_at(out, manifest, collection)
    job.check_memory(collection, settings)  # before hours of forwards
    if settings.dry_run:
        return forecast(collection, job.work(collection, out, settings), session)
    warn_of_forwards(collection, screen)
    job.warn(collection, out, settings, screen)
    head = collection.head(settings)
    pooled = job.pooled(collection, head, screen) or PooledRows(collection.features, ())
    with writing_run(out, manifest), collection.pinned(printable(str(out)), pooled):
        hits = job.extract(collection, pooled)
        collection.warn_of_trouble(screen)
        job.check(collection.records)
        write_images(out, collection.records, job.sides(collection.records))
        (summary,) = _score(job, collection, hits, [(head, out)], session)
        return summary


def score_heads(
    job: Job, collection: Collection, heads: Heads, out: Path, session: Session
) -> list[Summary]:
    """Score the images of a finished run under other heads, each into its folder.

    Rows that the store has lost are computed; `out` names what holds them there.

    Raises
    ------
    LpipstoreError
        An image of a lost row cannot be used any more, or results cannot be written.
    """
    summaries = []
    for some in [heads] if job.together else [[head] for head in heads]:
        pooled = job.pooled(collection, some[0][0], session.screen)
        if pooled is None:
            summaries += _score(job, collection, 0, some, session)
            continue
        with collection.pinned(printable(str(out)), pooled):
            hits = collection.complete(pooled.ensure)
            summaries += _score(job, collection, hits, some, session)
    return summaries


def _score(
    job: Job, collection: Collection, hits: int, heads: Heads, session: Session
) -> list[Summary]:
    """Score a collection whose rows are there; write the summaries."""
    clock, summaries = session.clock, []
    results = job.score(collection, heads, session)
    for found, (_, out) in zip(results, heads, strict=True):
        stages = {**dict.fromkeys(job.stages, 0.0), **clock.seconds, "total": clock.total()}
        summary = Summary(job.title, out, collection.counts(hits), found, stages)
        write_json(out / SUMMARY, summary.entries())
        summaries.append(summary)
    collection.warn_if_reading_is_slow(session.screen)
    return summaries
