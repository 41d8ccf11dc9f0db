"""A list whose pairs are scored, as a table and in a few numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...pipeline.common.text import printable
from ...pipeline.images.survey import ImageRecord
from ...pipeline.matrix.summary import Figures
from ...pipeline.pairlists.plan import UNUSABLE, ListPlan
from ...pipeline.pairlists.summary import list_summary
from ...pipeline.pairlists.table import PairList
from ...pipeline.runs.files import PAIRS
from ..session.summary import Results


@dataclass(frozen=True)
class Scored:
    """A list whose pairs are scored.

    Attributes
    ----------
    pairs
        The list.
    records
        One for each of the list's paths; those with an ``error`` could not be used.
    index
        int64 [paths]: line of each path in ``images.parquet`` among the usable ones, -1 for none.
    plan
        Where each pair's distance and statistics are.
    distances
        float32 [pairs], NaN for pairs that could not be scored.
    statistics
        Whether the pairs' statistics are kept.
    """

    pairs: PairList
    records: list[ImageRecord]
    index: NDArray[np.int64]
    plan: ListPlan
    distances: NDArray[np.float32]
    statistics: bool = False

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which pairs have a distance."""
        return np.asarray(self.plan.place != UNUSABLE)

    def table(self, which: slice | NDArray[np.int64] = slice(None)) -> pa.Table:
        """Return what ``pairs.parquet`` holds, but for columns that the list brought along.

        Of all pairs, or of those that `which` chooses: paths take several times the memory of all
        that is known of a pair besides.

        ``statistics_row`` says which line of ``statistics.zarr`` is the pair's; null for pairs of
        equal images, whose statistics are all 0, and for pairs without a distance.
        """
        names = pa.array([printable(path) for path in self.pairs.paths], pa.string())
        columns = {}
        sides = [("i", self.pairs.left[which]), ("j", self.pairs.right[which])]
        place = self.plan.place[which]
        for letter, side in sides:
            columns[letter] = pa.array(self.index[side], mask=self.index[side] < 0)
        for letter, side in sides:
            columns[f"path_{letter}"] = names.take(pa.array(side))
        columns["distance"] = pa.array(self.distances[which], mask=place == UNUSABLE)
        if self.statistics:
            columns["statistics_row"] = pa.array(place, mask=place < 0)
        return pa.table(columns)


@dataclass(frozen=True)
class ListResults(Results):
    """The results of a list.

    Attributes
    ----------
    pairs, failed_pairs, different_pairs
        Lines of the list with a distance, the others, and different pairs of different images.
    precision, precision_error
        "fast" and the error of fast distances; None for exact ones.
    rows_read
        Rows that were read, repeats included.
    """

    files: ClassVar[tuple[str, ...]] = (PAIRS,)
    over: ClassVar[str] = "over images that pairs share"
    pairs: int
    failed_pairs: int
    different_pairs: int
    figures: Figures
    precision: str | None
    precision_error: float | None
    rows_read: int

    def pairs_shown(self) -> str:
        """Return the numbers of pairs as people read them."""
        failed = f" ({self.failed_pairs:,} could not be)" if self.failed_pairs else ""
        return f"{self.pairs:,} scored{failed}"


def results_of(scored: Scored, error: float | None, rows_read: int) -> ListResults:
    """Return the results of a list; `error` is that of fast distances."""
    usable, pairs = scored.usable, scored.pairs
    image = _image_numbers(scored.records)
    return ListResults(
        pairs=int(usable.sum()),
        failed_pairs=int((~usable).sum()),
        different_pairs=len(scored.plan.pairs),
        figures=list_summary(
            scored.distances[usable], image[pairs.left[usable]], image[pairs.right[usable]]
        ),
        precision=None if error is None else "fast",
        precision_error=error,
        rows_read=rows_read,
    )


def _image_numbers(records: Sequence[ImageRecord]) -> NDArray[np.int64]:
    """Number images so that equal ones have one number; those that cannot be used have -1."""
    numbers = {record.content: n for n, record in enumerate(records) if not record.error}
    return np.array([numbers.get(record.content, -1) for record in records], np.int64)
