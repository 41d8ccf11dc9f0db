"""Distances of many pairs of nearly equal rows: float64 products relative to a nearby row.

A float32 product cancels for nearly equal rows, and differences of single pairs take fifty times as
long. Relative to a row of the same neighbourhood, a float64 product loses almost nothing and has a
known error. If that error cannot change the float32 number that the distance is rounded to, this
number is also what `direct_distances` gives (the rounding test of Ziv 1991, "Fast evaluation of
elementary mathematical functions with correctly rounded last bit"). The few other pairs are
computed from differences. So the result does not depend on which pairs are computed together, or
how.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..common.memory import fresh, fresh_zeros
from .direct import WORDS, direct_distances
from .panels import Columns
from .threads import THREADS, in_threads

_TILE = 128  # rows on each side of a product
_TILES = 4  # tiles on each side whose rows are converted together
_DENSE_SHARE = 40  # a product pays if one pair in this many is wanted
_LEAST_PAIRS = 2048  # fewest pairs for which converting the rows of a square pays
_MANY = 4  # few pairs: less than 1/_MANY of the largest count in the neighbourhood
_REPEATED = 4  # pairs per row above which looking for equal rows pays
_UNIT = 2.0**-53
_AROUND = 16  # total roundings of the operands and sums around a product


def near_distances(
    left: torch.Tensor,
    right: torch.Tensor,
    pairs: torch.Tensor,
    columns: Columns,
    beyond: float = math.inf,
) -> torch.Tensor:
    """Compute the distances of pairs of nearly equal rows, rounded to float32.

    Parameters
    ----------
    left, right, pairs, columns, beyond
        As for `lpipstore.pipeline.distances.direct.direct_distances`.

    Returns
    -------
    Tensor of shape [p], float64
        Up to `beyond`, bit for bit the result of `direct_distances` rounded to float32.
    """
    found = torch.full((len(pairs),), torch.nan, dtype=torch.float64, device=left.device)
    if columns.panels:
        ends = pairs.cpu().numpy()
        for square in _squares(ends, len(left), right is left):
            which = torch.from_numpy(square.pairs).to(left.device)
            numbers = _Products(left, right, square, columns).distances()
            found[which] = numbers
    rest = found.isnan().nonzero()[:, 0]
    if len(rest) > _REPEATED * len(torch.unique(pairs[rest])):
        rest = rest[~_equal(left, right, pairs, rest, found)]
    found[rest] = direct_distances(left, right, pairs[rest], columns, beyond)
    return found.to(torch.float32).to(torch.float64)


def _equal(
    left: torch.Tensor,
    right: torch.Tensor,
    pairs: torch.Tensor,
    rest: torch.Tensor,
    found: torch.Tensor,
) -> torch.Tensor:
    """Set the distances of equal rows among some pairs to 0; return a mask of these pairs.

    All pairs can be of this kind: frames of a motionless film whose files differ only in a time
    stamp.
    """
    import xxhash

    numbers: dict[bytes, int] = {}
    sides = []
    for rows, side in ((left, 0), (right, 1)):
        which, places = torch.unique(pairs[rest, side], return_inverse=True)
        words = rows.view(WORDS.get(rows.dtype, rows.dtype))
        digests = [xxhash.xxh3_128_digest(words[n].cpu().numpy().data) for n in which.tolist()]
        codes = [numbers.setdefault(digest, len(numbers)) for digest in digests]
        sides.append(torch.tensor(codes, device=pairs.device)[places])
    same = sides[0] == sides[1]
    found[rest[same]] = 0.0
    return same


@dataclass(frozen=True)
class _NearSquare:
    """Some rows of each side, and the pairs among them whose distances come from products.

    Attributes
    ----------
    down, across
        int64: row numbers in `left` and in `right`; if `across` is None, it is `down`.
    centres, other_centres
        int64: for each of these rows, a row of `left` in its neighbourhood.
    tiles
        The tiles (row, column) to multiply, in order.
    pairs
        int64 [p]: indices of the pairs.
    places
        int64 [p, 2]: their rows, as indices into `down` and `across`.
    """

    down: NDArray[np.int64]
    across: NDArray[np.int64] | None
    centres: NDArray[np.int64]
    other_centres: NDArray[np.int64]
    tiles: list[tuple[int, int]]
    pairs: NDArray[np.int64]
    places: NDArray[np.int64]


def _squares(ends: NDArray[np.int64], height: int, mirrored: bool) -> Iterator[_NearSquare]:
    """Yield the pairs that lie close together when rows are ordered by neighbourhood."""
    if len(ends) < _LEAST_PAIRS:
        return
    sides = _neighbourhoods(ends, height, mirrored)
    ranks = np.stack([side.rank[ends[:, n]] for n, side in enumerate(sides)], axis=1)
    if mirrored:
        ranks.sort(axis=1)
    along = -(-len(sides[1].order) // _TILE)
    codes, tile_of, counts = np.unique(
        ranks[:, 0] // _TILE * along + ranks[:, 1] // _TILE,
        return_inverse=True,
        return_counts=True,
    )
    tiles = np.stack([codes // along, codes % along], axis=1)
    dense = np.flatnonzero(counts * _DENSE_SHARE >= _TILE**2)
    wanted = np.flatnonzero(np.isin(tile_of, dense))
    squares, square_of = np.unique(tiles[dense] // _TILES, axis=0, return_inverse=True)
    of_tile = np.full(len(tiles), -1)
    of_tile[dense] = square_of.reshape(-1)
    of_pair = of_tile[tile_of[wanted]]
    for number, (row, column) in enumerate(squares.tolist()):
        own = wanted[of_pair == number]
        if len(own) < _LEAST_PAIRS:
            continue
        down, across = (
            slice(place * _TILES * _TILE, (place + 1) * _TILES * _TILE) for place in (row, column)
        )
        same = mirrored and row == column
        inside = tiles[dense[square_of.reshape(-1) == number]] - (row * _TILES, column * _TILES)
        yield _NearSquare(
            sides[0].order[down],
            None if same else sides[1].order[across],
            sides[0].centres[down],
            sides[1].centres[across],
            [(int(top), int(left)) for top, left in inside],
            own,
            ranks[own] - (down.start, across.start),
        )


@dataclass(frozen=True)
class _NearSide:
    """Rows of one side in `order` of neighbourhood, the `rank` of each row, and its centre."""

    order: NDArray[np.int64]
    rank: NDArray[np.int64]
    centres: NDArray[np.int64]


def _neighbourhoods(
    ends: NDArray[np.int64], height: int, mirrored: bool
) -> tuple[_NearSide, _NearSide]:
    """Order the ends of pairs so that connected rows are adjacent.

    Rows with many pairs come first: flat pictures are all close to one another, and each of them to
    a few others. Otherwise the order is kept, as for the frames of a film.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes = ends if mirrored else ends + np.array([0, height])
    count = max(int(nodes.max()) + 1, height)
    graph = coo_array((np.ones(len(nodes), bool), nodes.T), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    degrees = np.bincount(nodes.reshape(-1), minlength=count)
    largest = np.zeros(int(label.max()) + 1, int)
    np.maximum.at(largest, label, degrees)
    few = degrees * _MANY < largest[label]
    # Each has rows of `left`; relative to one with many pairs, most differences are small
    first = np.lexsort((few[:height], label[:height]))
    central = np.empty_like(largest)
    central[label[first[::-1]]] = first[::-1]

    def side(used: NDArray[np.int64], shift: int) -> _NearSide:
        used = np.unique(used)
        order = used[np.lexsort((few[used + shift], label[used + shift]))]
        rank = np.full(int(used[-1]) + 1, -1)
        rank[order] = np.arange(len(order))
        return _NearSide(order, rank, central[label[order + shift]])

    if mirrored:
        both = side(ends.reshape(-1), 0)
        return both, both
    return side(ends[:, 0], 0), side(ends[:, 1], height)


class _Products:
    """The products of one square; panels are shared between the threads."""

    def __init__(
        self, left: torch.Tensor, right: torch.Tensor, square: _NearSquare, columns: Columns
    ) -> None:
        self._words = [rows.view(WORDS.get(rows.dtype, rows.dtype)) for rows in (left, right)]
        self._dtype, self._square, self._columns = left.dtype, square, columns
        self._device = left.device
        sides = [(0, square.down, square.centres)]
        if square.across is not None:
            sides.append((1, square.across, square.other_centres))
        self._sides = [
            (which, self._to(rows), self._to(centres[:1] if _all_equal(centres) else centres))
            for which, rows, centres in sides
        ]

    def distances(self) -> torch.Tensor:
        """Return the distances of the square's pairs; NaN if the float32 rounding is uncertain."""
        lengths = [len(rows) for _, rows, _ in self._sides]
        shape = lengths[0], lengths[-1]
        products = [fresh_zeros(shape, torch.float64, self._device) for _ in range(THREADS)]
        norms = [
            torch.zeros(2, len(lengths), max(lengths), dtype=torch.float64, device=self._device)
            for _ in range(THREADS)
        ]
        in_threads(lambda thread: self._add(thread, products[thread], norms[thread]), self._device)
        rows, others = self._to(self._square.places).T
        both, absolute = sum(norms[1:], norms[0])
        inner = sum((part[rows, others] for part in products[1:]), products[0][rows, others])
        found = both[0][rows] + both[-1][others] - 2 * inner
        widest = max(map(len, self._columns.roots))
        share = 2 * (widest + len(self._columns.panels) + _AROUND) * _UNIT
        doubt = share * (absolute[0][rows] + absolute[-1][others])
        sure = (found - doubt).to(torch.float32) == (found + doubt).to(torch.float32)
        return torch.where(sure, found, torch.nan)

    def _add(self, thread: int, products: torch.Tensor, norms: torch.Tensor) -> None:
        columns = self._columns
        width = max(map(len, columns.roots))
        rooms = [
            fresh((len(rows), width), torch.float64, self._device) for _, rows, _ in self._sides
        ]
        for panel in range(thread, len(columns.panels), THREADS):
            roots = columns.roots[panel].to(torch.float64)
            signs = None if columns.signs is None else columns.signs[panel].to(torch.float64)
            sides = []
            for number, (side, room) in enumerate(zip(self._sides, rooms, strict=True)):
                points = self._points(side, columns.panels[panel], room[:, : len(roots)])
                points.mul_(roots)
                squares = points * points
                own = squares.sum(1)
                norms[1, number, : len(points)] += own
                if signs is not None:
                    own = squares.mul_(signs).sum(1)
                norms[0, number, : len(points)] += own
                sides.append(points)
            left, right = sides[0], sides[-1] if signs is None else sides[-1] * signs
            for top, across in self._products():
                products[top, across].addmm_(left[top], right[across].T)

    def _products(self) -> Iterator[tuple[slice, slice]]:
        """Yield the rows and columns of each product; adjacent tiles are joined."""
        run: list[tuple[int, int]] = []
        for tile in [*self._square.tiles, (-1, -1)]:
            if run and (tile[0] != run[-1][0] or tile[1] != run[-1][1] + 1):
                yield (
                    slice(run[0][0] * _TILE, (run[0][0] + 1) * _TILE),
                    slice(run[0][1] * _TILE, (run[-1][1] + 1) * _TILE),
                )
                run = []
            run.append(tile)

    def _points(
        self,
        side: tuple[int, torch.Tensor, torch.Tensor],
        panel: tuple[slice, ...],
        out: torch.Tensor,
    ) -> torch.Tensor:
        """Write rows minus their centres to `out`."""
        which, rows, centres = side
        start = 0
        for part in panel:
            here = out[:, start : start + part.stop - part.start]
            here.copy_(self._words[which][:, part].index_select(0, rows).view(self._dtype))
            centre = self._words[0][:, part].index_select(0, centres).view(self._dtype)
            here.sub_(centre.to(torch.float64))
            start += part.stop - part.start
        return out

    def _to(self, numbers: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers)).to(self._device)


def _all_equal(numbers: NDArray[np.int64]) -> bool:
    return bool((numbers == numbers[0]).all())
