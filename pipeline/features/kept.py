"""Rows that a worker keeps in memory, because tasks that follow one another share them."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.located import Located
from ..common.tasks import memory_of_task

_DEFAULT = 1 << 30  # bytes, where no task says


class KeptRows:
    """Sets of rows, read on demand; the least recently used ones leave for those that come.

    A row that another set holds is not read again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sets: OrderedDict[bytes, _Set] = OrderedDict()

    def get(self, where: Located, most: int) -> NDArray[np.generic]:
        """Return rows as stored, verified when they were read; keep at most `most` bytes.

        Nobody may change them.

        Raises
        ------
        RowsLost
            Rows are not where they should lie.
        """
        key = where.digest()
        with self._lock:
            found = self._sets.get(key)
            if found is not None:
                self._sets.move_to_end(key)
                return found.rows
            held = sum(kept.rows.nbytes for kept in self._sets.values())
            while self._sets and held + where.nbytes > most:
                held -= self._sets.popitem(last=False)[1].rows.nbytes
            others = list(self._sets.values())
        names = where.names()
        rows = _assembled(where, names, others)
        with self._lock:
            self._sets[key] = _Set(rows, {name: row for row, name in enumerate(names)})
        return rows

    def clear(self) -> None:
        """Let go of all rows."""
        with self._lock:
            self._sets.clear()


@dataclass(frozen=True, eq=False)
class _Set:
    """Rows, and the place of each by its name."""

    rows: NDArray[np.generic]
    places: dict[bytes, int]


def _assembled(where: Located, names: Sequence[bytes], sets: Sequence[_Set]) -> NDArray[Any]:
    """Return rows, copied from sets that have them; the others are read."""
    rows: NDArray[Any] = np.empty((len(where), where.length), where.dtype)
    left = dict(enumerate(names))
    for each in sets:
        here = {row: each.places[name] for row, name in left.items() if name in each.places}
        for row, place in here.items():
            rows[row] = each.rows[place]
            del left[row]
    if left:
        absent = np.array(list(left))
        where[absent].read_into(rows, absent)
    return rows


_KEPT = KeptRows()
"""Those of this process: what a Dask worker keeps from one task to the next."""


def forget_rows() -> None:
    """Let go of what this process keeps: its tasks are done."""
    _KEPT.clear()


def rows_at(where: Located) -> NDArray[np.generic]:
    """Return rows by where they lie; three quarters of a task's memory are for them."""
    return _KEPT.get(where, memory_of_task(_DEFAULT) // 4 * 3)
