"""`--dry-run`: what a command would do, and how long that would take, with nothing done."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from ...pipeline.common.tasks import threads
from ...pipeline.distances.heads import column_weights
from ...pipeline.distances.panels import Columns, live
from ...pipeline.images.loader import Decoding, cores
from ...pipeline.runs.files import IMAGES
from ...pipeline.runs.reopen import reopen_records
from ...pipeline.runs.run import FinishedRun
from ...pipeline.runs.writing import check_run
from .collection import Collection
from .estimate import Estimate, Work, estimate
from .screen import Lines
from .session import Session
from .settings import Settings, parse_dask, show_bytes
from .shares import Shares

_ASSUMED = (
    " and that of the workers, if work is shared evenly, each worker is as fast as one thread "
    "here, and disks and network keep up"
)


@dataclass(frozen=True)
class Forecast:
    """What a command would do; `failed` images cannot be used."""

    title: ClassVar[str] = "Would do"
    estimate: Estimate
    failed: int
    trained: bool
    shares: Shares | None = None

    @property
    def seconds(self) -> Mapping[str, float]:
        """By stage, and in total."""
        return self.estimate.seconds if self.shares is None else self.shares.seconds

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        told = {name: value for name, value in vars(self.estimate).items() if value is not None}
        shares = {} if self.shares is None else {"cluster": self.shares.entries()}
        return {
            **told,
            "seconds": self.seconds,
            "failed": self.failed,
            "trained": self.trained,
            **shares,
        }

    def lines(self) -> Lines:
        """Return the forecast as lines for people."""
        told, seconds = self.estimate, self.seconds
        stages = ", ".join(f"{name} {seconds[name]:.2f}" for name in ("forward", "read", "score"))
        most = "at most " if told.at_most else ""
        kept = f", rows of {show_bytes(told.bytes_kept)} to keep" if told.bytes_kept else ""
        tiles = "1 tile" if told.tiles == 1 else f"{told.tiles:,} tiles"
        done = f" (done already: {told.tiles_done:,})" if told.tiles_done else ""
        return [
            ("images", f"{told.images:,} ({told.images - told.unique:,} duplicates by hash)"),
            ("failed", f"{self.failed:,}"),
            ("forwards", f"{told.forwards:,} (already in the store: {told.hits:,}){kept}"),
            *([] if told.fetched is None else [("fetched", f"{told.fetched:,} rows")]),
            ("pairs", f"{told.pairs:,} in {tiles}{done}"),
            ("rows read", f"{most}{told.rows_read:,}, {show_bytes(told.bytes_read)}"),
            ("operations", f"{most}{told.operations:.3g}"),
            ("results", f"{most}{show_bytes(told.result_bytes)}"),
            *([] if self.shares is None else self.shares.lines(most)),
            (
                "seconds",
                f"about {seconds['total']:.2f} ({stages}), besides Python's start"
                f"{'' if self.shares is None else _ASSUMED}; score takes up to four times as long "
                "if most images are nearly equal",
            ),
        ]


def forecast(collection: Collection, work: Work, session: Session) -> Forecast:
    """Return what a command would do with a collection; nothing is stored."""
    settings = session.settings
    session.screen.say("calibrating: a batch through the trunk, a few rows, a product")
    names, how = collection.features.names, collection.features.extractor.preparation
    features = replace(  # no workers: starting them would be most of the time of a few images
        collection.features, decode=Decoding(session.sources, names, how, workers=0)
    )
    weights = column_weights(collection.head(settings), features.extractor.layout)
    decoders = cores() if settings.workers is None else settings.workers
    failed = len(collection.records) - len(collection.good)
    trained = features.extractor.backbone.trained
    if settings.dask is None:
        found = estimate(features, collection.contents(), weights, work, decoders)
        return Forecast(found, failed, trained)
    with threads(1):  # as workers compute
        found = estimate(features, collection.contents(), weights, work, 1)
    lacking = set(features.lacking(collection.contents()))
    row_bytes = features.extractor.spec.row_bytes
    sizes = {record.content: record.bytes for record in collection.good}
    shares = Shares(
        workers=session.crew.workers(),
        local=parse_dask(settings.dask) is not None,
        bytes_images=sum(size for content, size in sizes.items() if content in lacking),
        bytes_written=found.forwards * row_bytes,
        bytes_read=work.rows_sent * row_bytes,
        bytes_returned=work.bytes_returned,
        seconds_of_one=found.seconds,
    )
    return Forecast(found, failed, trained, shares)


def look_at(out: Path, manifest: Mapping[str, Any], collection: Collection) -> None:
    """Check whether the command could write to `out`, and take over what it finds there.

    Images that a run which has begun there could not decode get their ``error``.

    Raises
    ------
    UsageError, LpipstoreError
        The command would be refused: see `lpipstore.pipeline.runs.writing.writing_run`.
    """
    if check_run(out, manifest) and (out / IMAGES).exists():
        collection.features.failures.update(
            {
                record.content: record.error
                for record in reopen_records(FinishedRun(out))
                if record.content and record.error
            }
        )
        collection.mark_failures()


def width_of(collection: Collection, settings: Settings) -> int:
    """Return how many columns take part in a distance under the head that the settings name."""
    extractor = collection.features.extractor
    weights = column_weights(collection.head(settings), extractor.layout)
    return live(Columns.of(weights, extractor.spec.dtype, extractor.device))
