"""Find the pairs that can be close: lower bounds from pooled rows, stage by stage, coarse to fine.

No full matrix is held. The images are taken a block at a time, each block with all later ones; a
pair that one stage rules out is not looked at again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..features.rowcache import Pairs, RowCache
from .blocks import BLOCK, split, windows
from .bounds import BoundStage
from .sides import Sides

Bounds = NDArray[np.float32]

_STRIP = 8  # blocks that a block meets in one product of the coarsest stage
_MOST_PAIRS = 1 << 20  # that are passed on together
_DENSE_SHARE = 24  # a product pays off when one pair in so many is left
_MOST_ROWS = 2048  # of one direct computation
FEW = 16
"""If more than one pair in so many is left, finer bounds cost more than they save."""
_SAMPLE = 128  # pairs from which the share left is estimated

# Measured cost of one number relative to the dense matrix: in a comparison of one pair, and in a
# product of two blocks, whose rows are converted for that product alone
COMPARING = 40
PRODUCTS = 1.5
PRODUCT_PAYS = 64
"""A product of two blocks of rows pays off when one pair in so many is left."""
HANDLING = 20_000  # cost of a pair that a stage leaves, in numbers of the dense matrix


@dataclass
class Tally:
    """The work of a search: pairs that each stage left, and multiply-adds.

    Everything computed counts, wanted or not, including zeros that pad blocks; a direct difference
    counts two for each number. `compared` counts the numbers of direct differences.
    """

    left: dict[str, int] = field(default_factory=dict)
    arithmetic: int = 0
    compared: int = 0

    def leave(self, stage: str, pairs: int) -> None:
        """Count pairs that a stage did not rule out."""
        self.left[stage] = self.left.get(stage, 0) + pairs

    def compare(self, numbers: int) -> None:
        """Count numbers whose difference was taken."""
        self.arithmetic += 2 * numbers
        self.compared += numbers

    @property
    def cost(self) -> float:
        """Estimated time, in multiply-adds of the dense matrix."""
        products = self.arithmetic - 2 * self.compared
        handling = HANDLING * sum(self.left.values())
        return PRODUCTS * products + COMPARING * self.compared + handling

    def copy(self) -> "Tally":
        """Return the same work, to be added to by itself."""
        return replace(self, left=dict(self.left))

    def add(self, other: "Tally") -> None:
        """Add the work of another search."""
        for stage, pairs in other.left.items():
            self.leave(stage, pairs)
        self.arithmetic += other.arithmetic
        self.compared += other.compared


class Cascade:
    """The bound stages of a search.

    Parameters
    ----------
    stages
        Each stage with the bound vectors of all images, in blocks of `BLOCK`; coarse to fine.
        Without any stage, all pairs are left.
    sides
        The pairs that are searched.
    """

    def __init__(self, stages: Sequence[tuple[BoundStage, RowCache]], sides: Sides) -> None:
        self._stages = stages
        self.sides = sides

    def left(
        self,
        blocks: range,
        limits: NDArray[np.float64],
        tally: Tally,
        *,
        itself: bool,
        few: int = 0,
    ) -> Iterator[tuple[Pairs, Bounds, int]]:
        """Yield the pairs of given blocks with their partners that the coarsest stage leaves.

        Parameters
        ----------
        blocks
            Numbers of the blocks.
        limits
            float64 [count]: the largest true distance that matters to each image, minus infinity
            where none does. A pair is left as long as it can matter to either of its images.
        tally
            Updated with the work done.
        itself
            Whether to include the pairs within each block, if there is one side.
        few
            The pairs left out of the first `few` are yielded strip by strip.

        Yields
        ------
        pairs, bounds, out of
            Pairs (i, j), i < j, about a million at most; the bound of each; and the number of pairs
            that they were chosen from.
        """
        strips = [(b, s) for b in blocks for s in _strips(self.sides.partners(b, itself=itself))]
        waiting: list[tuple[Pairs, Bounds]] = []
        out_of = met = 0
        for number, (block, strip) in enumerate(strips, 1):
            waiting.append(self._coarsest(block, strip, limits, tally))
            out_of += BLOCK**2 * len(strip)
            met += BLOCK**2 * len(strip)
            many = met <= few or sum(len(some) for some, _ in waiting) > _MOST_PAIRS
            if many or number == len(strips):
                pairs, bounds = (np.concatenate(part) for part in zip(*waiting, strict=True))
                yield pairs, bounds, out_of
                waiting.clear()
                out_of = 0

    def refined(
        self,
        pairs: Pairs,
        bounds: Bounds,
        out_of: int,
        limits: NDArray[np.float64],
        tally: Tally,
    ) -> tuple[Pairs, Bounds]:
        """Return those pairs from `left` that no finer stage rules out, and their bounds.

        If most would be left anyway, finer bounds are not worth their time: all pairs are returned.
        """
        most_stay = self._most_stay(pairs, out_of, limits, tally)
        for stage, rows in self._stages[1:]:
            if not most_stay:
                reach = _reach(stage.limit(limits), pairs)
                bounds = self._bounds(stage, rows, pairs, reach, tally)
                possible = bounds <= reach
                pairs, bounds = pairs[possible], bounds[possible]
            tally.leave(stage.name, len(pairs))
        return pairs, bounds

    def likely(self, block: int, most: int, tally: Tally) -> NDArray[np.int64]:
        """Return up to `most` images of the second side that are likely to be near a block's.

        These are for each image of the block the one with the smallest bound, and then those with
        the smallest bounds of all; sorted by number.
        """
        partners = self.sides.partners(block)
        if not self._stages:
            return self.sides.across(partners)[:most]
        nearest = np.full(len(self.sides.top(block)), self.sides.start)
        least = np.full(len(nearest), np.inf, np.float32)
        smallest = []
        for strip in _strips(partners):
            across = self.sides.across(strip)
            bounds = self._product(block, across, tally)
            smallest.append(bounds.min(0))
            place, low = across[bounds.argmin(1)], bounds.min(1)
            nearest = np.where(low < least, place, nearest)
            least = np.minimum(low, least)
        order = np.concatenate(smallest)
        order[nearest - self.sides.start] = -np.inf
        return np.sort(np.argsort(order, kind="stable")[:most] + self.sides.start)

    def pass_by(self, pairs: int, tally: Tally) -> None:
        """Count pairs from `left` that are compared without going through the finer stages."""
        for stage, _ in self._stages[1:]:
            tally.leave(stage.name, pairs)

    def matters(
        self, bounds: Bounds, limits: NDArray[np.float64], pairs: Pairs
    ) -> NDArray[np.bool_]:
        """Return which pairs are still left under smaller limits."""
        if not self._stages:
            return np.ones(len(pairs), bool)
        loosest = max((stage for stage, _ in self._stages), key=lambda stage: stage.slack)
        return np.asarray(bounds <= _reach(loosest.limit(limits), pairs))

    def _most_stay(
        self, pairs: Pairs, out_of: int, limits: NDArray[np.float64], tally: Tally
    ) -> bool:
        """Estimate from a sample whether finer bounds would leave more than one pair in `FEW`."""
        if not self._stages[1:] or len(pairs) * FEW <= out_of:
            return False
        some = pairs[:: max(1, len(pairs) // _SAMPLE)]
        stage, rows = self._stages[-1]
        reach = _reach(stage.limit(limits), some)
        points, within = rows.pick(some, few=True)
        tally.compare(len(some) * stage.width)
        stay = np.mean(_singly(stage, points, within, reach) <= reach)
        return bool(stay * len(pairs) * FEW > out_of)

    def _coarsest(
        self, block: int, strip: range, limits: NDArray[np.float64], tally: Tally
    ) -> tuple[Pairs, Bounds]:
        """Return the pairs of a block and a strip of blocks that the first stage leaves."""
        top, across = self.sides.top(block), self.sides.across(strip)
        later = across[None, :] > top[:, None]
        bounds = np.zeros(later.shape, np.float32)
        if self._stages:
            stage = self._stages[0][0]
            bounds = self._product(block, across, tally)
            own, others = (_rounded_up(stage.limit(limits[which])) for which in (top, across))
            later &= (bounds <= own[:, None]) | (bounds <= others[None, :])
            tally.leave(stage.name, int(later.sum()))
        return np.argwhere(later) + np.array([top[0], across[0]]), bounds[later]

    def _product(self, block: int, across: NDArray[np.int64], tally: Tally) -> Bounds:
        """Return the bounds of the first stage between a block and other images."""
        stage, rows = self._stages[0]
        top = rows.block(block)[: len(self.sides.top(block))]
        bounds = np.asarray(stage.bounds(top, rows.take(across)).cpu().numpy())
        tally.arithmetic += bounds.size * stage.width
        return bounds

    def _bounds(
        self,
        stage: BoundStage,
        rows: RowCache,
        pairs: Pairs,
        reach: NDArray[np.float64],
        tally: Tally,
    ) -> Bounds:
        """Return the bounds of a stage: by products where many pairs are left, else singly."""
        bounds = np.empty(len(pairs), np.float32)
        dense, sparse = split(pairs, BLOCK, _DENSE_SHARE)
        for which in dense:
            top, left = (int(number) for number in pairs[which[0]] // BLOCK)
            cell = stage.bounds(rows.block(top), rows.block(left)).cpu().numpy()
            places = pairs[which] - (top * BLOCK, left * BLOCK)
            bounds[which] = cell[places[:, 0], places[:, 1]]
            tally.arithmetic += cell.size * stage.width
        for which in windows(pairs, sparse, _MOST_ROWS):
            bounds[which] = _singly(stage, *rows.pick(pairs[which]), reach[which])
        tally.compare(len(sparse) * stage.width)
        return bounds


def _strips(blocks: range) -> list[range]:
    """Cut consecutive blocks into strips."""
    return [blocks[start : start + _STRIP] for start in range(0, len(blocks), _STRIP)]


def _singly(
    stage: BoundStage, points: torch.Tensor, within: torch.Tensor, reach: NDArray[np.float64]
) -> Bounds:
    beyond = torch.from_numpy(_rounded_up(reach)).to(points.device)
    return np.asarray(stage.bounds_of(points, within, beyond).cpu().numpy())


def _reach(limits: NDArray[np.float64], pairs: Pairs) -> NDArray[np.float64]:
    """Return the largest bound with which each pair still matters to one of its images."""
    return np.asarray(np.maximum(limits[pairs[:, 0]], limits[pairs[:, 1]]))


def _rounded_up(limits: NDArray[np.float64]) -> Bounds:
    """Return limits rounded up to float32, so that rounding never drops a pair."""
    return np.nextafter(limits.astype(np.float32), np.float32(np.inf))
