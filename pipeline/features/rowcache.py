"""Rows of a collection by number, in blocks or singly: read on demand, cached within limits."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Pairs = NDArray[np.int64]
"""Pairs (i, j) of image numbers: [p, 2]."""

Read = Callable[[NDArray[np.int64]], NDArray[np.generic]]
"""``read(numbers)`` returns the stored rows of images [n, length], in that order."""


class RowCache:
    """A cache of stored rows in blocks; the least recently used blocks are evicted first.

    Parameters
    ----------
    read
        Reads rows.
    count
        Number of rows in the collection.
    block
        Rows per block; block k begins with row ``k * block``.
    room
        Rows to hold, at least two blocks.
    whole
        Read all rows at the first request and hold them, if there is room: for callers that need
        them all.
    device
        Device of the returned rows.
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
        self._whole: NDArray[np.generic] | None = None
        self._device = device

    def __getstate__(self) -> dict[str, Any]:
        """Leave the rows here: the other process reads what it needs."""
        return {**vars(self), "_blocks": OrderedDict(), "_whole": None}

    def block(self, number: int) -> torch.Tensor:
        """Return one block of rows."""
        start = number * self._block
        if self._all:
            return self._place(self._everything()[start : start + self._block])
        return self._place(self._held(number))

    def take(self, which: NDArray[np.int64]) -> torch.Tensor:
        """Return the rows `which`, in that order."""
        if self._all:
            return self._place(_chosen(self._everything(), which))
        numbers = which // self._block
        absent = ~np.isin(numbers, list(self._blocks))
        parts = [(absent, self._read(which[absent]))] if absent.any() else []
        for number in np.unique(numbers[~absent]).tolist():
            here = numbers == number
            parts.append((here, self._held(number)[which[here] - number * self._block]))
        if len(parts) == 1:
            return self._place(parts[0][1])
        first = parts[0][1]
        out = np.empty((len(which), first.shape[1]), first.dtype)
        for here, rows in parts:
            out[here] = rows
        return self._place(out)

    def pick(self, pairs: Pairs, *, few: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Return rows that include those of some pairs, and the pairs as indices into them.

        If `few`, only the rows of the pairs are read.
        """
        if self._all and not few:  # nothing is copied
            return self._place(self._everything()), torch.from_numpy(pairs).to(self._device)
        numbers, inverse = np.unique(pairs, return_inverse=True)
        places = torch.from_numpy(inverse.reshape(pairs.shape)).to(self._device)
        if self._all and self._whole is None:
            return self._place(self._read(numbers)), places
        return self.take(numbers), places

    def clear(self) -> None:
        """Release all rows."""
        self._blocks.clear()
        self._whole = None

    def _everything(self) -> NDArray[np.generic]:
        if self._whole is None:
            self._whole = self._read(np.arange(self._count))
        return self._whole

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


class SingleRows:
    """A cache of single rows for scattered pairs: one buffer, emptied when it is full.

    Parameters
    ----------
    read
        ``read(numbers, out)`` writes the stored rows of images to ``out`` [n, length].
    count
        Number of rows in the collection.
    room
        Rows to hold.
    length, dtype
        Length and dtype of a row.
    device
        Device of the returned rows.
    """

    def __init__(
        self,
        read: Callable[[NDArray[np.int64], NDArray[np.generic]], None],
        count: int,
        room: int,
        length: int,
        dtype: str,
        device: torch.device,
    ) -> None:
        self._read = read
        self._shape = min(room, count), length
        self._dtype = dtype
        self._device = device
        self._places = np.full(count, -1)
        self._buffer: NDArray[np.generic] | None = None
        self._used = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave the rows here: the other process reads what it needs."""
        places = np.full_like(self._places, -1)
        return {**vars(self), "_places": places, "_buffer": None, "_used": 0}

    def pick(self, pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
        """Return rows that include those of some pairs, and the pairs as indices into them.

        The next call may overwrite the rows. The pairs must not need more rows than there is room
        for (see `lpipstore.pipeline.search.blocks.windows`).
        """
        numbers = np.unique(pairs)
        absent = numbers[self._places[numbers] < 0]
        if self._used + len(absent) > self._shape[0]:
            self._forget()
            absent = numbers
        if self._buffer is None:
            self._buffer = np.empty(self._shape, self._dtype)
        start, self._used = self._used, self._used + len(absent)
        self._read(absent, self._buffer[start : self._used])
        self._places[absent] = np.arange(start, self._used)
        if self._device.type == "cpu":  # nothing is copied
            return torch.from_numpy(self._buffer), torch.from_numpy(self._places[pairs])
        rows = torch.from_numpy(self._buffer[self._places[numbers]]).to(self._device)
        return rows, torch.from_numpy(np.searchsorted(numbers, pairs)).to(self._device)

    def clear(self) -> None:
        """Release all rows."""
        self._buffer = None
        self._forget()

    def _forget(self) -> None:
        self._places[:] = -1
        self._used = 0


def _chosen(rows: NDArray[np.generic], which: NDArray[np.int64]) -> NDArray[np.generic]:
    """Return the rows `which`; consecutive rows are not copied."""
    if len(which) and (np.diff(which) == 1).all():
        return rows[which[0] : which[-1] + 1]
    return rows[which]
