"""How many rows a search holds, on a CPU or on a device with memory of its own."""

from collections.abc import Callable
from typing import TypeVar

import torch

from ..common.budget import Budget
from ..common.device import rows_at_once
from ..common.fitting import until_it_fits
from ..features.features import Features
from ..matrix.placing import placed
from ..matrix.plan import MatrixPlan

T = TypeVar("T")

_SHARE_OF_ROWS = 0.75  # of the memory; the rest is for pooled rows
_PANELS = 2 * 4 * 4096  # bytes of converted rows, one on either side of a computation
_LEAST_ROWS = 16


class SearchRoom:
    """The memory of a search: that of the device, which takes rows in by way of the host's.

    Parameters
    ----------
    features
        Source of the rows; says where they are scored.
    memory
        Bytes of this machine for rows and pooled rows.

    Raises
    ------
    TooLittle
        That, or the memory of the device, is too small for a few rows.
    """

    def __init__(self, features: Features, memory: int) -> None:
        self._device, self._row_bytes = features.device, features.extractor.spec.row_bytes
        self._memory, self._own = memory, features.room()
        self._where = features.extractor.device
        self.at_once = rows_at_once(rows_that_fit(self._row_bytes, memory), self._row_bytes)
        self._for_matrix = self._own
        self._rows_in(self._own)

    @property
    def own(self) -> bool:
        """Whether the device has memory of its own."""
        return self._own is not None

    @property
    def rows(self) -> int:
        """Rows to hold at a time."""
        return self._rows_in(self._own)

    @property
    def for_pooled(self) -> tuple[int, int]:
        """Bytes for pooled rows: of this machine, and of the device, the same on a CPU."""
        here, there = (
            int(size * (1 - _SHARE_OF_ROWS)) for size in (self._memory, self._own or self._memory)
        )
        return here, there

    def check(self, plan: MatrixPlan) -> None:
        """Raise `TooLittle` if the device has too little memory for a matrix."""
        placed(plan, self._row_bytes, self._for_matrix, self._where)

    def fit(self, work: Callable[[], T], release: Callable[[], None]) -> T:
        """Return what work gives that can be repeated; hold fewer rows if the device has no memory.

        `release` lets go of all rows.
        """

        def prepare(room: int | None) -> tuple[None, int]:
            self._rows_in(room)
            self._own = room
            return None, self._memory if room is None else room

        def run(_: None) -> T:
            try:
                return work()
            except torch.OutOfMemoryError:
                release()
                raise

        return until_it_fits(self._device, self._own, prepare, run)

    def _rows_in(self, room: int | None) -> int:
        if room is None:
            return rows_that_fit(self._row_bytes, self._memory)
        return rows_that_fit(self._row_bytes, room, "device_memory")


def rows_that_fit(row_bytes: int, memory: int, name: str = "memory") -> int:
    """Return how many rows to hold in the memory of the setting `name` at a time.

    Raises
    ------
    TooLittle
        `memory` is too small for `_LEAST_ROWS` rows; the message gives the minimum.
    """
    budget = Budget(int(memory * _SHARE_OF_ROWS), row_bytes, _PANELS, name)
    room = budget.rows()
    if room < _LEAST_ROWS:
        raise budget.too_small(budget.bytes(_LEAST_ROWS) / _SHARE_OF_ROWS)
    return room
