"""Collect pairs that may be close from the tiles of a matrix that is not stored."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..features.rowcache import Pairs
from .refine import under


class CandidateTiles:
    """A tile sink with the interface of `MatrixFile` that keeps only the pairs closer than `below`.

    Parameters
    ----------
    below
        The distance.
    tile
        Rows and columns of a tile.
    first
        Number of the first image whose pairs with later ones are wanted.
    save
        Called after every `every` tiles with what is new: pairs, and tiles as (row, column).
    every
        Number of tiles between two calls of `save`.
    start
        Number of the image of the first column.
    """

    def __init__(
        self,
        below: float,
        tile: int,
        first: int,
        save: Callable[[Pairs, NDArray[np.int64]], None],
        every: int,
        start: int = 0,
    ) -> None:
        self._below, self._tile, self._first = below, tile, first
        self._save, self._every, self._start = save, every, start
        self._done: set[tuple[int, int]] = set()
        self._found: list[Pairs] = []
        self._order: list[tuple[int, int]] = []
        self._saved = 0, 0  # arrays of pairs, and tiles

    def add(self, pairs: Pairs, tiles: NDArray[np.int64]) -> None:
        """Add results that `save` received earlier."""
        self._found.append(pairs)
        self._order += [(row, column) for row, column in tiles.tolist()]
        self._done.update(self._order)
        self._saved = len(self._found), len(self._order)

    def done(self, row: int, column: int) -> bool:
        """Return whether nothing in a tile is still needed."""
        return (row + 1) * self._tile <= self._first or (row, column) in self._done

    def write(self, row: int, column: int, distances: NDArray[np.float32]) -> None:
        """Add the wanted pairs of a tile."""
        pairs = np.argwhere(under(distances, self._below))
        pairs += np.array([row * self._tile, column * self._tile + self._start])
        wanted = (pairs[:, 0] >= self._first) & (pairs[:, 0] < pairs[:, 1])
        self._found.append(pairs[wanted])
        self._order.append((row, column))
        self._done.add((row, column))
        if len(self._order) - self._saved[1] == self._every:
            pairs_before, tiles_before = self._saved
            new = np.concatenate(self._found[pairs_before:])
            self._save(new, np.array(self._order[tiles_before:], np.int64))
            self._saved = len(self._found), len(self._order)

    def pairs(self) -> Pairs:
        """Return the pairs of all tiles so far, in no particular order."""
        return np.concatenate([np.empty((0, 2), np.int64), *self._found])
