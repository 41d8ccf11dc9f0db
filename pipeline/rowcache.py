"""Rows of a collection by number: read in blocks or singly, held while there is room."""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

Read = Callable[[NDArray[np.int64]], NDArray[np.generic]]
"""``read(numbers)`` returns the stored rows of images [n, length], in that order."""


class RowCache:
    """Stored rows, least recently used blocks leaving first.

    Parameters
    ----------
    read
        Where rows come from.
    count
        Rows that there are.
    block
        Rows in a block; block k begins with row ``k * block``.
    room
        Rows to hold, two blocks at least.
    whole
        Read whole blocks even where single rows are asked for, if there is room for all rows: they
        will be asked for again.
    device
        Where rows are handed out.
    """

    def __init__(
        self,
        read: Read,
        count: int,
        block: int,
        room: int,
        device: torch.device,
        *,
        whole: bool,
    ) -> None:
        self._read = read
        self._count = count
        self._block = block
        self._blocks: OrderedDict[int, NDArray[np.generic]] = OrderedDict()
        self._most = max(2, room // block)
        self._all = whole and self._most * block >= count
        self._device = device

    def block(self, number: int) -> torch.Tensor:
        """Return one block of rows."""
        return self._place(self._held(number))

    def take(self, which: NDArray[np.int64]) -> torch.Tensor:
        """Return chosen rows, in the order given."""
        numbers = which // self._block
        absent = np.ones(len(which), bool)
        parts = []
        for number in np.unique(numbers).tolist():
            if self._all or number in self._blocks:
                here = numbers == number
                absent &= ~here
                parts.append((here, self._held(number)[which[here] - number * self._block]))
        if absent.any():
            parts.append((absent, self._read(which[absent])))
        if len(parts) == 1:
            return self._place(parts[0][1])
        first = parts[0][1]
        out = np.empty((len(which), first.shape[1]), first.dtype)
        for here, rows in parts:
            out[here] = rows
        return self._place(out)

    def clear(self) -> None:
        """Let go of all rows."""
        self._blocks.clear()

    def _held(self, number: int) -> NDArray[np.generic]:
        if number not in self._blocks:
            while len(self._blocks) >= self._most:
                self._blocks.popitem(last=False)
            start = number * self._block
            stop = min(start + self._block, self._count)
            self._blocks[number] = self._read(np.arange(start, stop))
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _place(self, rows: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(rows).to(self._device)
