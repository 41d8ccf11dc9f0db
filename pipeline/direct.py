"""Distances of chosen pairs of rows, from the differences of the rows."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch

from .columns import Columns
from .lanes import LANES, in_lanes
from .products import fresh_zeros

_PAIRS = 128  # of one call: two panels of them fit in the caches
_STAGES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the panels; after each, pairs beyond the limit are given up


def direct_distances(
    left: torch.Tensor,
    right: torch.Tensor,
    pairs: torch.Tensor,
    columns: Columns,
    beyond: float = math.inf,
) -> torch.Tensor:
    """Compute the distances of chosen pairs from the differences of their rows.

    Parameters
    ----------
    left, right
        Stored rows, [n, length] and [m, length].
    pairs
        int64 [p, 2]: rows of `left` and of `right`.
    columns
        The head, prepared for the dtype of the rows.
    beyond
        What is farther apart need not be known better than that. Of use where the head has no
        negative weights: squares only add up.

    Returns
    -------
    Tensor of shape [p], float64
        Relative error about 1e-6; never negative for heads without negative weights; exactly 0 for
        equal rows; the same bits for (x, y) and (y, x), and whatever other pairs are asked for.
        Distances over `beyond` may be too small, but not under it.
    """
    sums = torch.zeros(LANES, len(pairs), dtype=torch.float64, device=left.device)
    still = torch.arange(len(pairs), device=left.device)
    for panels in _stages(columns, beyond):
        if not len(still) or not columns.panels:
            break
        sums[:, still] = part = _added(sums[:, still], left, right, pairs[still], columns, panels)
        still = still[part.sum(0) <= beyond]
    return sums.sum(0)


def _added(
    sums: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    pairs: torch.Tensor,
    columns: Columns,
    panels: Sequence[Sequence[int]],
) -> torch.Tensor:
    """Add to the sums of each lane what its panels contribute; return the sums."""

    def add(lane: int) -> None:
        _Lane(left, right, pairs, columns, sums[lane]).add(panels[lane])

    in_lanes(add, left.device)
    return sums


def _stages(columns: Columns, beyond: float) -> Iterator[list[list[int]]]:
    """Yield the panels of each stage, those of each lane by themselves.

    The last come first: columns of deep taps weigh most, as their taps have few positions.
    """
    numbers = list(reversed(range(len(columns.panels))))
    shares = _STAGES if math.isfinite(beyond) and columns.signs is None else _STAGES[-1:]
    start = 0
    for share in shares:
        stop = math.ceil(share * len(numbers))
        yield [[n for n in numbers[start:stop] if n % LANES == lane] for lane in range(LANES)]
        start = stop


class _Lane:
    """Sums over some of the panels, for all pairs; few pairs take several panels a call."""

    def __init__(
        self,
        left: torch.Tensor,
        right: torch.Tensor,
        pairs: torch.Tensor,
        columns: Columns,
        sums: torch.Tensor,
    ) -> None:
        self._columns, self._sums = columns, sums
        self._together = max(1, _PAIRS // len(pairs))
        count = max(2, min(_PAIRS, len(pairs)))
        width = max(map(len, columns.roots)) * min(self._together, len(columns.roots))
        self._sides = [
            _Side(rows, column.contiguous(), count, width)
            for rows, column in zip((left, right), pairs.unbind(1), strict=True)
        ]

    def add(self, panels: Sequence[int]) -> None:
        """Add what panels contribute, in the order given."""
        roots = self._columns.roots
        for width, alike in groupby(panels, lambda number: len(roots[number])):
            numbers = list(alike)
            for start in range(0, len(numbers), self._together):
                self._add(numbers[start : start + self._together], width)

    def _add(self, panels: Sequence[int], width: int) -> None:
        columns = [part for number in panels for part in self._columns.panels[number]]
        roots = torch.cat([self._columns.roots[number] for number in panels])
        signs = None
        if self._columns.signs is not None:
            signs = torch.cat([self._columns.signs[number] for number in panels])
        for start in range(0, len(self._sums), _PAIRS):
            part = slice(start, start + _PAIRS)
            x, y = (side.take(part, columns) for side in self._sides)
            x.sub_(y).mul_(roots)
            squares = torch.mul(x, x if signs is None else x * signs, out=y)
            sums = self._sums[part]
            for added in squares.view(len(squares), -1, width).sum(2).unbind(1):
                sums.add_(added[: len(sums)])


class _Side:
    """Rows on one side of the pairs; room for those of `count` pairs, `width` columns of them."""

    def __init__(self, rows: torch.Tensor, places: torch.Tensor, count: int, width: int) -> None:
        # torch cannot index uint16, and fetching fresh memory each time would take longest
        self._bits = rows.view(torch.int16) if rows.dtype == torch.uint16 else rows
        self._dtype, self._places = rows.dtype, places
        self._points = fresh_zeros((count, width), torch.float32, rows.device)
        self._stored = self._points
        if rows.dtype != torch.float32:
            self._stored = torch.zeros(count, width, dtype=torch.int16, device=rows.device)

    def take(self, part: slice, columns: Sequence[slice]) -> torch.Tensor:
        """Return the rows of some pairs as float32; of one pair twice.

        The sum of a single row would be split among threads.
        """
        places = self._places[part]
        if len(places) == 1:
            places = places.expand(2)
        stored, start = self._stored[: len(places)], 0
        for some in columns:
            stop = start + some.stop - some.start
            torch.index_select(self._bits[:, some], 0, places, out=stored[:, start:stop])
            start = stop
        points = self._points[: len(places), :start]
        if stored.dtype != points.dtype:
            points.copy_(stored[:, :start].view(self._dtype))
        return points
