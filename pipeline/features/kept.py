"""Rows that a worker keeps in memory, because tasks that follow one another share them."""

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from ...cache.located import Located
from ..common.tasks import memory_of_task

_DEFAULT = 1 << 30  # bytes, where no task says


class KeptRows:
    """Sets of rows, read on demand; the least recently used ones leave for those that come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sets: OrderedDict[bytes, NDArray[np.generic]] = OrderedDict()

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
                return found
            held = sum(rows.nbytes for rows in self._sets.values())
            while self._sets and held + where.nbytes > most:
                held -= self._sets.popitem(last=False)[1].nbytes
        rows = where.read()
        with self._lock:
            self._sets[key] = rows
        return rows

    def clear(self) -> None:
        """Let go of all rows."""
        with self._lock:
            self._sets.clear()


_KEPT = KeptRows()
"""Those of this process: what a Dask worker keeps from one task to the next."""


def forget_rows() -> None:
    """Let go of what this process keeps: its tasks are done."""
    _KEPT.clear()


def rows_at(where: Located) -> NDArray[np.generic]:
    """Return rows by where they lie; three quarters of a task's memory are for them."""
    return _KEPT.get(where, memory_of_task(_DEFAULT) // 4 * 3)
