"""Find the pairs that can be close: lower bounds from pooled rows, stage by stage, coarse to fine.

No full matrix is held. The images are taken a block at a time, each block with all later ones; a
pair that one stage rules out is not looked at again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ..features.rowcache import Pairs, RowCache
from .blocks import BLOCK, split, windows
from .bounds import BoundStage

Bounds = NDArray[np.float32]

_STRIP = 8  # blocks that a block meets in one product of the coarsest stage
_MOST_PAIRS = 1 << 20  # that are passed on together
_DENSE_SHARE = 24  # a product pays off when one pair in so many is left
_MOST_ROWS = 2048  # of one direct computation
_FEW = 16  # if more than one pair in so many is left, finer bounds cost more than they save
_SAMPLE = 128  # pairs from which the share left is estimated
_CELLS = 16  # parts of a sample, in the order of the collection

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

    def add(self, other: "Tally") -> None:
        """Add the work of another search."""
        for stage, pairs in other.left.items():
            self.leave(stage, pairs)
        self.arithmetic += other.arithmetic
        self.compared += other.compared


class Cascade:
    """The bound stages of a search among `count` images.

    Parameters
    ----------
    stages
        Each stage with its bound vectors, in blocks of `BLOCK`; coarse to fine. Without any stage,
        all pairs are left.
    count
        Number of images.
    """

    def __init__(self, stages: Sequence[tuple[BoundStage, RowCache]], count: int) -> None:
        self._stages = stages
        self.count = count

    def left(
        self,
        blocks: range,
        limits: NDArray[np.float64],
        tally: Tally,
        *,
        itself: bool,
        few: int = 0,
    ) -> Iterator[tuple[Pairs, Bounds, int]]:
        """Yield the pairs of given blocks with later ones that the coarsest stage leaves.

        Parameters
        ----------
        blocks
            Numbers of the blocks.
        limits
            float64 [count]: the largest true distance that matters to each image. A pair is left as
            long as it can matter to either of its images.
        tally
            Updated with the work done.
        itself
            Whether to include the pairs within each block.
        few
            The pairs left out of the first `few` are yielded strip by strip.

        Yields
        ------
        pairs, bounds, out of
            Pairs (i, j), i < j, about a million at most; the bound of each; and the number of pairs
            that they were chosen from.
        """
        stop = -(-self.count // BLOCK)
        starts = [(b, s) for b in blocks for s in range(b if itself else b + 1, stop, _STRIP)]
        waiting: list[tuple[Pairs, Bounds]] = []
        out_of = met = 0
        for number, (block, start) in enumerate(starts, 1):
            strip = range(start, min(start + _STRIP, stop))
            waiting.append(self._coarsest(block, strip, limits, tally))
            out_of += BLOCK**2 * len(strip)
            met += BLOCK**2 * len(strip)
            many = met <= few or sum(len(some) for some, _ in waiting) > _MOST_PAIRS
            if many or number == len(starts):
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
        """Estimate from a sample whether finer bounds would leave more than one pair in `_FEW`."""
        if not self._stages[1:] or len(pairs) * _FEW <= out_of:
            return False
        some = pairs[:: max(1, len(pairs) // _SAMPLE)]
        stage, rows = self._stages[-1]
        reach = _reach(stage.limit(limits), some)
        points, within = rows.pick(some, few=True)
        tally.compare(len(some) * stage.width)
        stay = np.mean(_singly(stage, points, within, reach) <= reach)
        return bool(stay * len(pairs) * _FEW > out_of)

    def _coarsest(
        self, block: int, strip: range, limits: NDArray[np.float64], tally: Tally
    ) -> tuple[Pairs, Bounds]:
        """Return the pairs of a block and a strip of blocks that the first stage leaves."""
        top = np.arange(block * BLOCK, min((block + 1) * BLOCK, self.count))
        across = np.arange(strip.start * BLOCK, min(strip.stop * BLOCK, self.count))
        later = across[None, :] > top[:, None]
        bounds = np.zeros(later.shape, np.float32)
        if self._stages:
            stage, rows = self._stages[0]
            bounds = stage.bounds(rows.block(block), rows.take(across)).cpu().numpy()
            tally.arithmetic += bounds.size * stage.width
            own, others = (_rounded_up(stage.limit(limits[which])) for which in (top, across))
            later &= (bounds <= own[:, None]) | (bounds <= others[None, :])
            tally.leave(stage.name, int(later.sum()))
        return np.argwhere(later) + np.array([top[0], across[0]]), bounds[later]

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


def few_remain(
    stage: BoundStage,
    rows: RowCache,
    images: NDArray[np.int64],
    limits: NDArray[np.float64],
    tally: Tally,
) -> bool:
    """Return whether a stage rules out all but one in `_FEW` of the pairs of some images.

    Parameters
    ----------
    images
        Sorted image numbers.
    limits
        float64 [images]: as for `Cascade.left`.
    """
    stay = _stay(stage, rows, images, limits, tally)
    return bool(stay[np.triu_indices(len(images), 1)].mean() * _FEW <= 1)


def estimated_cost(
    stage: BoundStage,
    rows: RowCache,
    images: NDArray[np.int64],
    limits: NDArray[np.float64],
    tally: Tally,
) -> float:
    """Estimate from some images the cost of comparing the pairs that a stage leaves.

    Returns
    -------
    float
        Relative to the cost of comparing all pairs in one matrix. Images that are adjacent in the
        collection are grouped: where the pairs that are left lie close to one another, as in a
        film, few products are needed.
    """
    stay = _stay(stage, rows, images, limits, tally)
    np.fill_diagonal(stay, False)
    edges = np.linspace(0, len(images), _CELLS + 1).astype(int)[:-1]
    sizes = np.diff(edges, append=len(images))
    pairs = np.outer(sizes, sizes) - np.diag(sizes)
    cells = np.add.reduceat(np.add.reduceat(stay.astype(int), edges, 0), edges, 1)
    shares = cells / np.maximum(pairs, 1)
    costs = np.where(shares * PRODUCT_PAYS > 1, PRODUCTS, COMPARING * shares)
    return float((costs * pairs).sum() / pairs.sum())


def _stay(
    stage: BoundStage,
    rows: RowCache,
    images: NDArray[np.int64],
    limits: NDArray[np.float64],
    tally: Tally,
) -> NDArray[np.bool_]:
    """Return for all pairs of some images whether a stage leaves them."""
    points, _ = rows.pick(np.stack([images, images], 1), few=True)
    bounds = stage.bounds(points, points).cpu().numpy()
    tally.arithmetic += bounds.size * stage.width
    reach = stage.limit(limits)
    return np.asarray(bounds <= np.maximum(reach[:, None], reach))


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
