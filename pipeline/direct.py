"""Distances of chosen pairs of rows, from the differences of the rows."""

import math
from collections.abc import Sequence

import torch

from .columns import Columns
from .lanes import LANES, in_lanes
from .products import fresh_zeros

_PAIRS = 128  # of one call: shorter ones are not worth a lane's turn at the interpreter
_WORDS = {torch.uint16: torch.int16}  # what torch cannot index, as what it can
_STAGES = (1 / 4, 1)  # of the panels; after each, pairs beyond the limit are given up


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
    if not len(pairs):
        return torch.zeros(0, dtype=torch.float64, device=left.device)
    lanes = [_Lane(left, right, pairs, columns) for _ in range(LANES)]
    still = torch.arange(len(pairs), device=left.device)
    for shares in _stages(columns, beyond):
        if len(still):
            _add(lanes, shares, still, left.device)
            still = still[_total(lanes)[still] <= beyond]
    return _total(lanes)


def _add(
    lanes: "Sequence[_Lane]",
    shares: Sequence[Sequence[int]],
    which: torch.Tensor,
    device: torch.device,
) -> None:
    in_lanes(lambda lane: lanes[lane].add(shares[lane], which), device)


def _total(lanes: "Sequence[_Lane]") -> torch.Tensor:
    return torch.stack([lane.sums for lane in lanes]).sum(0)


def _stages(columns: Columns, beyond: float) -> list[list[Sequence[int]]]:
    """Return the numbers of the panels of each stage, those of each lane by themselves.

    The last come first: columns of deep taps weigh most, as their taps have few positions.
    """
    panels = range(len(columns.panels))[::-1]
    stages: list[list[Sequence[int]]] = []
    start = 0
    for share in _STAGES if beyond < math.inf and columns.signs is None else _STAGES[-1:]:
        stop = math.ceil(share * len(panels) / LANES) * LANES
        stages.append([panels[start + lane : stop : LANES] for lane in range(LANES)])
        start = stop
    return stages


class _Lane:
    """Sums over some of the panels.

    Attributes
    ----------
    sums
        float64 [pairs], so far.
    """

    def __init__(
        self, left: torch.Tensor, right: torch.Tensor, pairs: torch.Tensor, columns: Columns
    ) -> None:
        self.sums = torch.zeros(len(pairs), dtype=torch.float64, device=left.device)
        self._left = left.view(_WORDS.get(left.dtype, left.dtype))
        self._right = self._left if right is left else right.view(self._left.dtype)
        self._dtype, self._pairs, self._columns = left.dtype, pairs, columns
        # Room for both sides of the pairs: to fetch fresh memory each time would take longest
        widest = max(map(len, columns.roots), default=1)
        whole = widest * -(-len(columns.roots) // LANES)
        room = 2 * min(_PAIRS * widest, max(2, len(pairs)) * whole)
        self._stored = torch.empty(room, dtype=self._left.dtype, device=left.device)
        self._points = fresh_zeros((room,), torch.float32, left.device)

    def add(self, panels: Sequence[int], which: torch.Tensor) -> None:
        """Add what panels contribute to the sums of some pairs, in the order of the panels."""
        count = -(-len(which) // -(-len(which) // _PAIRS))
        together = max(1, _PAIRS // max(2, count))  # few pairs take several panels a call
        for some in torch.split(which, count):
            # The sum of a single row would be split among threads: it stands there twice
            pairs = self._pairs[some if len(some) > 1 else some.expand(2)]
            sums = self.sums[some]
            for start in range(0, len(panels), together):
                for added in self._squares(pairs, panels[start : start + together]):
                    sums.add_(added.sum(1)[: len(sums)])
            self.sums[some] = sums

    def _squares(self, pairs: torch.Tensor, panels: Sequence[int]) -> Sequence[torch.Tensor]:
        """Return v∘(x - y)² of the columns of each panel, float32 [pairs, columns]."""
        roots = [self._columns.roots[panel] for panel in panels]
        widths = list(map(len, roots))
        ranges = [part for panel in panels for part in self._columns.panels[panel]]
        x, y = self._fetch(pairs, ranges, sum(widths))
        x.sub_(y).mul_(torch.cat(roots))
        signed = x
        if self._columns.signs is not None:
            signed = x * torch.cat([self._columns.signs[panel] for panel in panels])
        return torch.split(torch.mul(x, signed, out=y), widths, 1)

    def _fetch(
        self, pairs: torch.Tensor, ranges: Sequence[slice], width: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return some columns of the rows on both sides of pairs as float32 [pairs, width]."""
        shape = 2 * len(pairs), width
        stored, points = (
            room[: shape[0] * width].view(shape) for room in (self._stored, self._points)
        )
        x, y = stored.chunk(2)
        sides = [(self._left, pairs[:, 0], x), (self._right, pairs[:, 1], y)]
        if self._left is self._right:
            sides = [(self._left, pairs.T.reshape(-1), stored)]
        for rows, places, out in sides:
            start = 0
            for part in ranges:
                stop = start + part.stop - part.start
                torch.index_select(rows[:, part], 0, places, out=out[:, start:stop])
                start = stop
        points.copy_(stored.view(self._dtype))
        x, y = points.chunk(2)
        return x, y
