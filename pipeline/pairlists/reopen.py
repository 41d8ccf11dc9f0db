"""Reopen the list of pairs of a finished run."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..images.survey import ImageRecord
from ..runs.files import PAIRS
from ..runs.reopen import reading
from ..runs.run import FinishedRun
from .table import PairList

_OF_PAIRS = 5  # columns of pairs.parquet that are not the list's own: i, j, two paths, distance


def reopen_pairs(
    run: FinishedRun, records: Sequence[ImageRecord], table: pa.Table | None = None
) -> PairList:
    """Return the list of pairs of a run, numbered by the run's images.

    Parameters
    ----------
    records
        Images of the run, from `reopen_records`.
    table
        The lines of the run's ``pairs.parquet`` to use, each a pair; None means all.

    Raises
    ------
    LpipstoreError
        The tables of the run are damaged.
    """
    names = run.images.column("path").to_pylist()
    usable = np.array([n for n, record in enumerate(records) if not record.error], np.int64)
    others = {names[n]: n for n, record in enumerate(records) if record.error}
    own = _OF_PAIRS + bool(run.manifest.get("statistics"))
    with reading(run, PAIRS):
        table = run.pairs if table is None else table
        left, right = (_ends(table, letter, usable, others) for letter in "ij")
        extra = table.select(range(own, table.num_columns))
    return PairList([record.path for record in records], left, right, extra)


def _ends(
    table: pa.Table, letter: str, usable: NDArray[np.int64], others: Mapping[str, int]
) -> NDArray[np.int64]:
    """Return one end of each pair as image numbers; unusable images are found by name."""
    column = table.column(letter)
    ends = np.empty(len(column), np.int64)
    found = column.is_valid().to_numpy()
    ends[found] = usable[column.drop_null().to_numpy()]
    lost = table.column(f"path_{letter}").filter(pa.array(~found))
    ends[~found] = [others[name] for name in lost.to_pylist()]
    return ends
