"""Distances of chosen pairs of rows, computed from row differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from ..common.memory import fresh
from .panels import Columns

PAIRS_AT_ONCE = 192
"""Pairs per call: enough for torch to split the call across its threads."""

WORDS = {torch.uint16: torch.int16}
"""Dtypes that torch cannot index, and the dtypes to view them as."""

_AT_ONCE = 64  # pairs per torch call, in float64: their columns stay in the caches
_STAGES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the panels; after each, pairs beyond the limit are dropped


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
        int64 [p, 2]: row numbers in `left` and in `right`.
    columns
        The head, prepared for the dtype of the rows.
    beyond
        Stop early on pairs that are known to be farther apart than this. Used only if the head has
        no negative weights, so that partial sums never decrease.

    Returns
    -------
    Tensor of shape [p], float64
        Sums in float64: relative error about 1e-13; never negative for heads without negative
        weights; exactly 0 for equal rows; the same bits for (x, y) and (y, x), and whatever other
        pairs are computed. Distances over `beyond` may come out too small, but never below it.
    """
    sums = torch.zeros(len(pairs), dtype=torch.float64, device=left.device)
    if not len(pairs) or not columns.panels:
        return sums
    differences = _Differences(left, right, pairs, columns)
    still = torch.arange(len(pairs), device=left.device)
    for panels in _stages(columns, beyond):
        differences.add(panels, still, sums)
        still = still[sums[still] <= beyond]
    return sums


def _stages(columns: Columns, beyond: float) -> list[Sequence[int]]:
    """Return the panel numbers of each stage.

    The heaviest panels come first, so that far pairs are dropped early.
    """
    panels = columns.heaviest_first
    if beyond == math.inf or columns.signs is not None:
        return [panels]
    stops = [math.ceil(share * len(panels)) for share in (0, *_STAGES)]
    return [panels[start:stop] for start, stop in pairwise(stops)]


class _Differences:
    """The rows of some pairs, and work buffers."""

    def __init__(
        self, left: torch.Tensor, right: torch.Tensor, pairs: torch.Tensor, columns: Columns
    ) -> None:
        self._left = left.view(WORDS.get(left.dtype, left.dtype))
        self._right = self._left if right is left else right.view(self._left.dtype)
        self._dtype, self._pairs, self._columns = left.dtype, pairs, columns
        # Buffers for both sides of the pairs: allocating them each time would take longest
        widths = list(map(len, columns.roots))
        room = 2 * min(_AT_ONCE * max(widths), max(2, len(pairs)) * sum(widths))
        self._points = fresh((room,), torch.float64, left.device)
        self._stored = fresh((room,), torch.float32, left.device).view(self._left.dtype)

    def add(self, panels: Sequence[int], which: torch.Tensor, sums: torch.Tensor) -> None:
        """Add the contributions of panels to the sums of some pairs, in panel order."""
        if not len(which):
            return
        count = -(-len(which) // -(-len(which) // _AT_ONCE))
        own = sums[which]
        chunks = list(
            zip(torch.split(own, count), torch.split(self._pairs[which], count), strict=True)
        )
        together = max(1, _AT_ONCE // max(2, count))  # for few pairs, several panels per call
        for start in range(0, len(panels), together):
            batch = _PairBatch.of(self._columns, panels[start : start + together])
            for some, pairs in chunks:  # whose columns stay in the caches
                # A single row is doubled, because torch would split its sum across threads
                squares = self._squares(pairs if len(pairs) > 1 else pairs.expand(2, 2), batch)
                for part in torch.split(squares, batch.widths, 1):
                    some.add_(part.sum(1)[: len(some)])
        sums[which] = own

    def _squares(self, pairs: torch.Tensor, batch: "_PairBatch") -> torch.Tensor:
        """Return v∘(x - y)² for the columns of a batch, float64 [pairs, columns]."""
        x, y = self._fetch(pairs, batch)
        x.sub_(y).mul_(batch.roots)
        return torch.mul(x, x if batch.signs is None else x * batch.signs, out=y)

    def _fetch(self, pairs: torch.Tensor, batch: "_PairBatch") -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch's columns of both rows of each pair, float64 [pairs, columns]."""
        shape = 2 * len(pairs), len(batch.roots)
        stored, points = (
            room[: shape[0] * shape[1]].view(shape) for room in (self._stored, self._points)
        )
        x, y = stored.chunk(2)
        sides = [(self._left, pairs[:, 0], x), (self._right, pairs[:, 1], y)]
        if self._left is self._right:
            sides = [(self._left, pairs.T.reshape(-1), stored)]
        for rows, places, out in sides:
            start = 0
            for part in batch.ranges:
                stop = start + part.stop - part.start
                torch.index_select(rows[:, part], 0, places, out=out[:, start:stop])
                start = stop
        points.copy_(stored.view(self._dtype))
        x, y = points.chunk(2)
        return x, y


@dataclass(frozen=True)
class _PairBatch:
    """Several panels that are processed in one call, their columns one after another."""

    ranges: Sequence[slice]
    widths: list[int]
    roots: torch.Tensor
    signs: torch.Tensor | None

    @classmethod
    def of(cls, columns: Columns, panels: Sequence[int]) -> "_PairBatch":
        roots = [columns.roots[panel] for panel in panels]
        signs = None
        if columns.signs is not None:
            signs = torch.cat([columns.signs[panel] for panel in panels])
        ranges = [part for panel in panels for part in columns.panels[panel]]
        exact = torch.cat(roots).to(torch.float64)
        return cls(ranges, list(map(len, roots)), exact, signs)
