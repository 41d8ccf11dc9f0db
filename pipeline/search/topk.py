"""The nearest neighbours found so far: distance and image number in one sortable integer."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SAVES = 64
"""Number of saves per search: each writes all results so far, which grow with the collection."""

_NONE = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_NUMBER = np.uint64(0xFFFF_FFFF)
_HALF = np.uint64(32)
_SIGN = np.uint32(0x8000_0000)


class Neighbours:
    """The `most` nearest of the images offered so far, for each of `count` images.

    A neighbour is kept as one uint64: its high half holds the bits of the distance, transformed to
    sort as the distances do, its low half the image number. Equal distances are thus sorted by
    number, and the order of offers does not affect which neighbours are kept.

    Attributes
    ----------
    codes
        uint64 [count, most], sorted; all bits set where there is no neighbour yet.
    """

    def __init__(self, count: int, most: int, codes: NDArray[np.uint64] | None = None) -> None:
        self.most = most
        self.codes = np.full((count, most), _NONE) if codes is None else codes

    def offer(
        self,
        images: NDArray[np.int64],
        others: NDArray[np.int64],
        distances: NDArray[np.float32],
    ) -> None:
        """Add the distances [n, m] of images to others; a repeated pair counts once."""
        offered = _encode(distances, others)
        offered[images[:, None] == others[None, :]] = _NONE  # no image is its own neighbour
        known = self.codes[images]
        if offered.shape[1] > self.most:
            offered = np.partition(offered, self.most - 1, axis=1)[:, : self.most]
        # Neighbours that are kept already reappear with the same code
        both = np.sort(np.concatenate([known, offered], 1), axis=1)
        both[:, 1:][both[:, 1:] == both[:, :-1]] = _NONE
        self.codes[images] = np.sort(both, axis=1)[:, : self.most]

    def reach(self) -> NDArray[np.float64]:
        """Return the distance up to which a further image could be a neighbour; float64 [count]."""
        last = self.codes[:, -1]
        return np.where(last == _NONE, np.inf, _decode(last).astype(np.float64))

    def table(self) -> dict[str, NDArray[np.generic]]:
        """Return columns i, j, distance and rank (from 1), sorted by i, then rank."""
        i, place = np.nonzero(self.codes != _NONE)
        codes = self.codes[i, place]
        return {
            "i": i,
            "j": (codes & _NUMBER).astype(np.int64),
            "distance": _decode(codes),
            "rank": place + 1,
        }


class NeighbourTiles:
    """A tile sink with the interface of `MatrixFile` that keeps only the nearest neighbours.

    Each image of a row is offered those of the columns, and of one collection the reverse.

    Parameters
    ----------
    found
        Receives the distances of each tile.
    tile
        Rows and columns of a tile.
    done
        Tiles that `found` includes; updated in place.
    save
        Called after every `every` tiles.
    every
        Number of tiles between two calls of `save`.
    second
        Number of the image of the first column, if the columns are another side; None if the matrix
        is of one collection.
    """

    def __init__(
        self,
        found: Neighbours,
        tile: int,
        done: set[tuple[int, int]],
        save: Callable[[], None],
        every: int,
        second: int | None = None,
    ) -> None:
        self._found, self._tile, self._done, self._save = found, tile, done, save
        self._every, self._second = every, second

    def done(self, row: int, column: int) -> bool:
        """Return whether a tile is already included."""
        return (row, column) in self._done

    def write(self, row: int, column: int, distances: NDArray[np.float32]) -> None:
        """Add a tile, and its mirror if it has one."""
        top, left = (
            np.arange(number * self._tile, number * self._tile + length)
            for number, length in zip((row, column), distances.shape, strict=True)
        )
        self._found.offer(top, left + (self._second or 0), distances)
        if self._second is None and row != column:
            self._found.offer(left, top, distances.T)
        self._done.add((row, column))
        if len(self._done) % self._every == 0:
            self._save()


def _encode(distances: NDArray[np.float32], numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    bits = (distances + np.float32(0)).view(np.uint32)  # minus zero is zero
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return (ordered.astype(np.uint64) << _HALF) | numbers.astype(np.uint64)


def _decode(codes: NDArray[np.uint64]) -> NDArray[np.float32]:
    ordered = (codes >> _HALF).astype(np.uint32)
    return np.where(ordered & _SIGN, ordered ^ _SIGN, ~ordered).astype(np.uint32).view(np.float32)
