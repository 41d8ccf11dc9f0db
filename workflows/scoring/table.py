"""Score a list of pairs of images."""

from collections.abc import Sequence
from pathlib import Path

from ...cache.errors import UsageError, setting
from ...pipeline.common.progress import Stopwatch
from ...pipeline.common.text import printable
from ...pipeline.images.survey import ImageRecord
from ...pipeline.pairlists.file import write_table
from ...pipeline.pairlists.reopen import reopen_pairs
from ...pipeline.pairlists.table import PairList, read_pairs
from ...pipeline.runs.files import PAIRS
from ...pipeline.runs.run import FinishedRun
from ...pipeline.sources.source import GivenSource
from ..session.collection import STAGES
from ..session.dryrun import Forecast
from ..session.screen import Screen
from ..session.session import open_session
from ..session.settings import Settings
from ..session.summary import Summary
from .job import run_job
from .listed import ListResults, Scored
from .pairlist import ListJob, need_same_pairs, survey_list


def score_table(
    table: Path,
    out: Path,
    settings: Settings,
    screen: Screen,
    *,
    columns: str | None = None,
    images: Path | None = None,
    statistics: bool = False,
) -> Summary | Forecast:
    """Score the pairs that a table lists and write the run to the folder `out`.

    Parameters
    ----------
    table
        A CSV, TSV or Parquet file (see `lpipstore.pipeline.pairlists.table.read_pairs`).
    columns
        The names of the two columns of paths, with a comma in between.
    images
        The folder that paths start from; None stands for the table's own folder.
    statistics
        Keep the pairs' statistics, so that other heads need no rows.

    Raises
    ------
    LpipstoreError
        The table cannot be read, no pair can be scored, or `out` holds a different run.
    """
    clock = Stopwatch(*STAGES)
    if images is not None and not images.is_dir():
        raise UsageError(f"{setting('images', printable(str(images)))} is not a folder")
    with clock("hash"):
        pairs = read_pairs(table, None if columns is None else columns.split(","), images)
    return score_list(pairs, out, settings, screen, statistics=statistics, clock=clock)


def score_list(
    pairs: PairList,
    out: Path,
    settings: Settings,
    screen: Screen,
    *,
    given: Sequence[GivenSource] = (),
    statistics: bool = False,
    clock: Stopwatch | None = None,
) -> Summary | Forecast:
    """Score a list of pairs, some of whose images may be of sources that a program gave.

    Returns the summary; see `score_table`.
    """
    with open_session(settings, screen, clock) as session:
        for source in given:
            session.sources.add(source)
        records = survey_list(pairs.paths, session)
        return run_job(TableOfPairs(pairs, statistics), records, out, session)


class TableOfPairs(ListJob):
    """The pairs of a table, one per line."""

    title = "Scored"
    command = "score"

    @classmethod
    def reopen(
        cls, run: FinishedRun, records: Sequence[ImageRecord], folder: str, settings: Settings
    ) -> "TableOfPairs":
        """Read the list from the tables of the run."""
        pairs = reopen_pairs(run, records)
        need_same_pairs(run, pairs)
        return cls(pairs, bool(run.manifest.get("statistics")))

    def write(self, scored: Scored, results: ListResults, out: Path) -> ListResults:
        """Write ``pairs.parquet``; input columns with names of ours get ``input_`` in front."""
        table = scored.table()
        extra = scored.pairs.extra
        for given, column in zip(extra.column_names, extra.columns, strict=True):
            name = given
            while name in table.column_names:
                name = f"input_{name}"
            table = table.append_column(name, column)
        write_table(out / PAIRS, table)
        return results
