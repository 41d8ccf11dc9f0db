"""Rows of a collection by number, in blocks or singly: read on demand, cached within limits.

Rows are kept on the device that computes with them; the host only reads them. On a CPU, that is the
same memory.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..common.device import Device, Sent, device_of
from ..common.memory import fresh

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
        Device that holds the rows.
    at_once
        Rows that are read before they are uploaded; None for a block.
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
        at_once: int | None = None,
    ) -> None:
        self._read = read
        self._count = count
        self._block = block
        self._blocks: OrderedDict[int, torch.Tensor] = OrderedDict()
        self._most = max(2, room // block)
        self._all = whole and self._most * block >= count
        self._whole: torch.Tensor | None = None
        self._device = device
        self._at_once = at_once or block

    def __getstate__(self) -> dict[str, Any]:
        """Leave the rows here: the other process reads what it needs."""
        return {**vars(self), "_blocks": OrderedDict(), "_whole": None}

    def block(self, number: int) -> torch.Tensor:
        """Return one block of rows."""
        start = number * self._block
        if self._all:
            return self._everything()[start : start + self._block]
        return self._held(number)

    def take(self, which: NDArray[np.int64]) -> torch.Tensor:
        """Return the rows `which`, in that order."""
        if self._all:
            return chosen(self._everything(), which)
        numbers = which // self._block
        absent = ~np.isin(numbers, list(self._blocks))
        parts = [(absent, self._placed(which[absent]))] if absent.any() else []
        for number in np.unique(numbers[~absent]).tolist():
            here = numbers == number
            parts.append((here, chosen(self._held(number), which[here] - number * self._block)))
        if len(parts) == 1:
            return parts[0][1]
        first = parts[0][1]
        out = _empty((len(which), first.shape[1]), first.dtype, self._device)
        for here, rows in parts:
            places = torch.from_numpy(np.flatnonzero(here)).to(self._device)
            bits_of(out).index_copy_(0, places, bits_of(rows))
        return out

    def pick(self, pairs: Pairs, *, few: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Return rows that include those of some pairs, and the pairs as indices into them.

        If `few`, only the rows of the pairs are read.
        """
        if self._all and not few:  # nothing is copied
            return self._everything(), torch.from_numpy(pairs).to(self._device)
        numbers, inverse = np.unique(pairs, return_inverse=True)
        places = torch.from_numpy(inverse.reshape(pairs.shape)).to(self._device)
        if self._all and self._whole is None:
            return self._placed(numbers), places
        return self.take(numbers), places

    def clear(self) -> None:
        """Release all rows."""
        self._blocks.clear()
        self._whole = None

    def _everything(self) -> torch.Tensor:
        if self._whole is None:
            self._whole = self._placed(np.arange(self._count))
        return self._whole

    def _held(self, number: int) -> torch.Tensor:
        if number not in self._blocks:
            while len(self._blocks) >= self._most:
                self._blocks.popitem(last=False)
            start = number * self._block
            stop = min(start + self._block, self._count)
            self._blocks[number] = self._placed(np.arange(start, stop))
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _placed(self, which: NDArray[np.int64]) -> torch.Tensor:
        """Read rows and upload them, a share at a time if that is a copy."""
        return upload_rows(device_of(self._device), self._read, which, self._at_once)()


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
        Device that holds the rows.
    at_once
        Rows that are read before they are uploaded; None for all that are missing.
    """

    def __init__(
        self,
        read: Callable[[NDArray[np.int64], NDArray[np.generic]], None],
        count: int,
        room: int,
        length: int,
        dtype: str,
        device: torch.device,
        at_once: int | None = None,
    ) -> None:
        self._read = read
        self._shape = min(room, count), length
        self._dtype = dtype
        self._device = device
        self._places = np.full(count, -1)
        self._buffer: torch.Tensor | None = None
        self._used = 0
        self._at_once = at_once or count

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
            kind: torch.dtype = getattr(torch, self._dtype)
            self._buffer = _empty(self._shape, kind, self._device)
        start, stop = self._used, self._used + len(absent)
        self._fill(absent, self._buffer[start:stop])
        self._used = stop
        self._places[absent] = np.arange(start, stop)
        return self._buffer, torch.from_numpy(self._places[pairs]).to(self._device)

    def clear(self) -> None:
        """Release all rows."""
        self._buffer = None
        self._forget()

    def _fill(self, which: NDArray[np.int64], out: torch.Tensor) -> None:
        """Read rows into a part of the buffer."""
        device = device_of(self._device)
        if device.local and len(which):
            self._read(which, out.numpy())
            return
        for start in range(0, len(which), self._at_once):
            some = which[start : start + self._at_once]
            rows = np.empty((len(some), self._shape[1]), self._dtype)
            self._read(some, rows)
            out[start : start + len(some)].copy_(device.upload(rows))

    def _forget(self) -> None:
        self._places[:] = -1
        self._used = 0


def upload_rows(device: Device, read: Read, which: NDArray[np.int64], at_once: int) -> Sent:
    """Begin to upload the rows `which`, read `at_once` at a time, or at once if nothing is copied.

    See `lpipstore.pipeline.common.device.Device.send`.
    """
    width = len(which) if device.local or not len(which) else at_once
    starts = range(0, len(which), width) if width else (0,)
    return device.send((read(which[at : at + width]) for at in starts), len(which))


def bits_of(rows: torch.Tensor) -> torch.Tensor:
    """Return rows as a dtype that torch can index: it cannot index uint16."""
    return rows.view(torch.int16) if rows.dtype == torch.uint16 else rows


def chosen(rows: torch.Tensor, which: NDArray[np.int64]) -> torch.Tensor:
    """Return the rows `which`; consecutive rows are not copied."""
    if len(which) and (np.diff(which) == 1).all():
        return rows[which[0] : which[-1] + 1]
    places = torch.from_numpy(which).to(rows.device)
    out = _empty((len(which), rows.shape[1]), rows.dtype, rows.device)
    torch.index_select(bits_of(rows), 0, places, out=bits_of(out))
    return out


def _empty(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    kind = torch.int16 if dtype == torch.uint16 else dtype
    return fresh(shape, kind, device).view(dtype)
