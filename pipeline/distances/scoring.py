"""Steps of scoring: functions of rows and a head that any thread or process can run.

Arguments and results are plain data. Rows are given as a tensor on the device to compute on, as an
array, or by where they lie; whoever has them on a GPU already need not move them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.located import Located
from ..backbones.layout import RowLayout
from ..common.by_value import ByValue
from ..common.device import Ready, device_of
from ..common.tasks import Crew, Label, Task
from ..features.kept import rows_at
from .direct import WORDS, direct_distances
from .distances import gram_distances, pair_statistics
from .panels import Columns

Rows: TypeAlias = torch.Tensor | NDArray[np.generic] | Located
"""Stored rows [n, length], or where they lie."""

_AT_ONCE = 16  # pairs per batch: fixed, so that a pair's bits do not depend on its neighbours


@dataclass(frozen=True)
class Scoring(ByValue):
    """What a matrix of distances takes besides rows, the same for all of its parts.

    Attributes
    ----------
    columns, centre, block, fast
        As for `lpipstore.pipeline.distances.distances.gram_distances`.
    """

    columns: Columns
    centre: torch.Tensor
    block: int
    fast: bool = False

    def products(self, left: torch.Tensor, right: torch.Tensor | None) -> torch.Tensor:
        """Return all distances between two sets of rows, float64 [n, m], on their device."""
        return gram_distances(left, right, self.columns, self.centre, self.block, fast=self.fast)

    def placed(self, rows: Rows) -> torch.Tensor:
        """Return rows as a tensor, arrays and rows that are read on the device of the head."""
        if isinstance(rows, Located):
            rows = rows_at(rows)
        if isinstance(rows, torch.Tensor):
            return rows
        return device_of(self.centre.device).upload(rows)


def begin_all(left: Rows, right: Rows | None, scoring: Scoring) -> Ready:
    """Begin to compute all distances between two sets of rows, float32 [n, m].

    `right` None means `left`. Returns what waits for them: on the CPU, they are there already.
    """
    others = None if right is None else scoring.placed(right)
    return _begun(scoring.products(scoring.placed(left), others))


def begin_by_product(
    left: Rows, right: Rows | None, pairs: NDArray[np.int64], scoring: Scoring
) -> Ready:
    """Begin to compute the distances of pairs [p, 2] of rows out of those of all, float32 [p]."""
    others = None if right is None else scoring.placed(right)
    matrix = scoring.products(scoring.placed(left), others)
    rows, columns = torch.from_numpy(pairs).to(matrix.device).unbind(1)
    return _begun(matrix[rows, columns])


def begin_singly(
    left: Rows, right: Rows | None, pairs: NDArray[np.int64], scoring: Scoring
) -> Ready:
    """Begin to compute the distances of pairs [p, 2] of rows from differences, float32 [p]."""
    rows = scoring.placed(left)
    others = rows if right is None else scoring.placed(right)
    ends = torch.from_numpy(pairs).to(rows.device)
    return _begun(direct_distances(rows, others, ends, scoring.columns))


def finished(begin: Callable[..., Ready], *args: object) -> NDArray[np.float32]:
    """Return what a step gives that others only begin: in a worker, nothing comes after it."""
    return np.asarray(begin(*args)())


def task_of(crew: Crew, label: Label, begin: Callable[..., Ready], *args: object) -> Task[Label]:
    """Return the task of a step, such as `begin_all`, for a crew; `ready_of` takes its result."""
    return Task(label, finished, (begin, *args)) if crew.elsewhere else Task(label, begin, args)


def ready_of(result: Ready | NDArray[np.float32]) -> Ready:
    """Return what waits for the distances of a task, whether it is finished or only begun."""
    return result if callable(result) else lambda: result


def score_statistics(
    rows: torch.Tensor | NDArray[np.generic],
    pairs: NDArray[np.int64],
    layout: RowLayout,
    dtype: str,
) -> NDArray[np.float32]:
    """Return the statistics of pairs [p, 2] of rows, float32 [p, channels of all taps].

    See `lpipstore.pipeline.distances.distances.pair_statistics`; `dtype` is that of the rows.
    """
    stored = torch.as_tensor(rows)
    bits = stored.view(WORDS.get(stored.dtype, stored.dtype))  # which torch can index
    places = torch.from_numpy(pairs).to(stored.device)
    found = []
    for some in torch.split(places, _AT_ONCE):
        filled = some[torch.arange(_AT_ONCE, device=some.device).clamp_(max=len(some) - 1)]
        left, right = (bits.index_select(0, side).view(stored.dtype) for side in filled.T)
        found.append(pair_statistics(left, right, layout, dtype)[: len(some)])
    return torch.cat(found).cpu().numpy()


def _begun(distances: torch.Tensor) -> Ready:
    return device_of(distances.device).download(distances.to(torch.float32))
