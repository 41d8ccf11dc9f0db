"""One way to make a run: the contract of a kind of run, and the function that runs any of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from ...cache.pins import Pin
from ...pipeline.common.text import printable
from ...pipeline.images.survey import ImageRecord
from ...pipeline.runs.files import SUMMARY, write_json
from ...pipeline.runs.run import Run
from ...pipeline.runs.tables import write_images
from ...pipeline.runs.writing import writing_run
from ..session.collection import Collection
from ..session.dryrun import forecast, look_at
from ..session.estimate import Work
from ..session.manifest import make_manifest
from ..session.preflight import warn_of_forwards
from ..session.screen import Screen
from ..session.session import Session, make_collection
from ..session.settings import Settings

Lines = list[tuple[str, str]]
"""A summary as people see it: a name and a value per line."""


class Job(ABC):
    """One kind of run. `run_job` calls the methods in the order in which they stand here.

    A new kind is one file with a subclass, and one line in `lpipstore.workflows.scoring.kinds`.

    Attributes
    ----------
    command
        The command that makes such runs, as the manifest names it.
    stages
        Stages that only this kind has; the summary counts their seconds, 0 if nothing was done.
    """

    command: ClassVar[str] = "pairs"
    stages: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def reopen(
        cls,
        run: Run,
        then: Sequence[ImageRecord],
        now: Sequence[ImageRecord],
        settings: Settings,
    ) -> Self:
        """Return the job that made a finished run, to make it again.

        Parameters
        ----------
        then, now
            The images of the run, as they were and as they are.
        settings
            Those of the run, with the memory of this call.

        Raises
        ------
        UsageError
            The memory is too small for the job itself.
        LpipstoreError
            The files of the run are damaged.
        """

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

    @abstractmethod
    def warn(self, collection: Collection, out: Path, settings: Settings, screen: Screen) -> None:
        """Warn of what the run will cost besides forwards."""

    def pin(self, collection: Collection, out: Path) -> Pin:
        """Keep the rows that the job needs from eviction."""
        return collection.pinned(printable(str(out)))

    def extract(self, collection: Collection) -> int:
        """Compute the rows that the store lacks; return the number of hits."""
        return collection.extract()

    def sides(self, records: Sequence[ImageRecord]) -> Sequence[str] | None:
        """Return the side of the matrix of each image; None if there are no sides."""
        return None

    @abstractmethod
    def score(self, collection: Collection, out: Path, session: Session) -> dict[str, Any]:
        """Score what is not scored yet, write the results; return what the summary says of them."""

    @staticmethod
    @abstractmethod
    def lines(summary: dict[str, Any], out: Path) -> Lines:
        """Return the summary as lines for people."""


def run_job(job: Job, records: list[ImageRecord], out: Path, session: Session) -> dict[str, Any]:
    """Run a job on surveyed images and write the run to the folder `out`.

    The same job on the same folder continues where it was interrupted. With ``--dry-run`` nothing
    is written, and the forecast is returned.

    Returns
    -------
    dict
        The summary that is also written to ``summary.json``.

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
    with writing_run(out, manifest), job.pin(collection, out):
        hits = job.extract(collection)
        collection.warn_of_trouble(screen)
        job.check(collection.records)
        write_images(out, collection.records, job.sides(collection.records))
        scored = job.score(collection, out, session)
        return finish_run(collection, hits, scored, out, screen, job.stages)


def finish_run(
    collection: Collection,
    hits: int,
    scored: Mapping[str, Any],
    out: Path,
    screen: Screen,
    stages: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the summary of a run that was scored, and return it."""
    clock = collection.features.clock
    summary = {
        **collection.counts(hits),
        **scored,
        "seconds": {**dict.fromkeys(stages, 0.0), **clock.seconds, "total": clock.total()},
    }
    write_json(out / SUMMARY, summary)
    collection.warn_if_reading_is_slow(screen)
    return summary
