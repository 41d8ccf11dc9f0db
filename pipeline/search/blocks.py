"""Group pairs into blocks where a matrix product pays off, and windows that share rows."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..features.rowcache import Pairs

BLOCK = 256
"""Images per block: the pairs of two blocks are processed together."""


_AHEAD = 64  # pairs to look at for each row of a window


def split(pairs: Pairs, side: int, share: int) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Sort pairs into candidate blocks of `side` by `side` images.

    A candidate block is worth a matrix product if it holds more than ``BLOCK**2 / share`` pairs.

    Returns
    -------
    dense
        Indices into `pairs`, one array for each candidate block that is worth a product.
    sparse
        Indices of all other pairs, sorted by candidate block.
    """
    cells = pairs // side
    order = np.lexsort((cells[:, 1], cells[:, 0]))
    starts = np.flatnonzero(np.diff(cells[order], axis=0, prepend=-1).any(1))
    by_cell = np.split(order, starts[1:])
    dense = [which for which in by_cell if len(which) * share > BLOCK**2]
    sparse = [which for which in by_cell if len(which) * share <= BLOCK**2]
    return dense, np.concatenate([*sparse, order[:0]])


def windows(pairs: Pairs, which: NDArray[np.int64], room: int) -> Iterator[NDArray[np.int64]]:
    """Split indices into `pairs` into runs whose pairs need at most `room` distinct rows."""
    while len(which):
        seen = pairs[which[: room * _AHEAD]].reshape(-1)
        first = np.unique(seen, return_index=True)[1]
        fits = np.searchsorted(np.sort(first), np.arange(1, len(seen), 2), side="right") <= room
        run = which[: int(fits.sum())]
        yield run
        which = which[len(run) :]
