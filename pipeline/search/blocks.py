"""Some pairs out of all: where a matrix product pays, and which rows the others need together."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..features.rowcache import Pairs

BLOCK = 256
"""Images in a block: the pairs of two blocks are looked at together."""


_AHEAD = 64  # pairs to look at for each row of a window


def split(pairs: Pairs, side: int, share: int) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Sort pairs into cells of `side` by `side` images.

    A cell is worth a product of `BLOCK` by `BLOCK` rows if it holds more than one in `share` of so
    many pairs.

    Returns
    -------
    dense
        Places in `pairs`, one array for each cell that is worth a product.
    sparse
        Places of all other pairs, cell by cell.
    """
    cells = pairs // side
    order = np.lexsort((cells[:, 1], cells[:, 0]))
    starts = np.flatnonzero(np.diff(cells[order], axis=0, prepend=-1).any(1))
    by_cell = np.split(order, starts[1:])
    dense = [which for which in by_cell if len(which) * share > BLOCK**2]
    sparse = [which for which in by_cell if len(which) * share <= BLOCK**2]
    return dense, np.concatenate([*sparse, order[:0]])


def windows(pairs: Pairs, which: NDArray[np.int64], room: int) -> Iterator[NDArray[np.int64]]:
    """Cut places in `pairs` into runs, as long as the rows of a run are `room` at most."""
    while len(which):
        seen = pairs[which[: room * _AHEAD]].reshape(-1)
        first = np.unique(seen, return_index=True)[1]
        fits = np.searchsorted(np.sort(first), np.arange(1, len(seen), 2), side="right") <= room
        run = which[: int(fits.sum())]
        yield run
        which = which[len(run) :]
