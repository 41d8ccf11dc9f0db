"""Find close pairs and nearest neighbours in a collection without its full matrix."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import UsageError, setting
from ..common.progress import Report
from ..distances.distances import block_of
from ..distances.panels import Columns, live
from ..features.features import Features
from ..features.pooled import PooledRows
from ..features.rowcache import Pairs, RowCache, SingleRows
from ..matrix.plan import plan_matrix
from ..matrix.score import score_matrix
from .blocks import BLOCK
from .bound_rows import central_numbers, directions_of, grids_of
from .bounds import BoundStage, DenseError
from .candidates import CandidateTiles
from .cascade import Bounds, Cascade, Tally, estimated_cost, few_remain
from .refine import Refiner
from .topk import SAVES, Neighbours, NeighbourTiles

_SHARE_OF_ROWS = 0.75  # of the memory; the rest is for pooled rows
_PANELS = 2 * 4 * 4096  # bytes of converted rows, one on either side of a computation
_LEAST_ROWS = 16
_BLOCKS = 4  # searched for close pairs together: few calls on many pairs
_WASTE = 0.05  # share of the matrix's cost that may go into a part that is given up


class Close(NamedTuple):
    """Pairs and their distances: int64 [p], int64 [p], float32 [p]."""

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    distance: NDArray[np.float32]


class Search:
    """A collection under one head, ready to be searched.

    Parameters
    ----------
    features, pooled
        Sources of rows and pooled rows; `pooled` has no grids if the head has negative weights.
    contents
        Content hash of each image.
    weights
        Column weights of the head, float32 [length].
    memory
        Bytes for rows and pooled rows.
    revisit
        Whether rows are needed repeatedly, as for nearest neighbours.

    Attributes
    ----------
    count
        Number of images.
    parts, steps
        Number of parts of a search for close pairs, and of steps of one for nearest neighbours.
    arithmetic
        Multiply-adds of the dense matrix, counted as in a `Tally`.
    """

    def __init__(
        self,
        features: Features,
        pooled: PooledRows,
        contents: Sequence[bytes],
        weights: NDArray[np.float32],
        memory: int,
        *,
        revisit: bool = False,
    ) -> None:
        extractor = features.extractor
        spec, device = extractor.spec, extractor.device
        columns = Columns.of(weights, spec.dtype, device)
        block = block_of(len(contents), spec.row_bytes)
        self._features, self._pooled, self._contents = features, pooled, contents
        self._weights, self._memory, self._row_bytes = weights, memory, spec.row_bytes
        self.count = len(contents)
        self._blocks = -(-self.count // BLOCK)
        self.parts = -(-self._blocks // _BLOCKS)
        self.steps = 2 * self._blocks
        along = -(-self.count // block)
        self.arithmetic = along * (along + 1) // 2 * block**2 * live(columns)
        self._live = live(columns)

        def rows_of(which: NDArray[np.int64]) -> NDArray[np.generic]:
            return features.rows([contents[number] for number in which])

        def read(which: NDArray[np.int64], out: NDArray[np.generic]) -> None:
            features.read([contents[number] for number in which], out)

        room = rows_that_fit(spec.row_bytes, memory)
        # Cached rows take memory beside the two blocks that are being compared
        side = min(BLOCK, 1 << (room // (4 if revisit else 2)).bit_length() - 1)
        held = room - 2 * side if revisit else room
        rows = RowCache(rows_of, self.count, side, held, device, whole=revisit)
        single = SingleRows(read, self.count, room, spec.length, spec.dtype, device)
        dense = DenseError.of(weights, extractor.layout, spec.dtype, columns)
        centre = features.centre(contents)
        self._side, self._block = side, block
        self._exact = Refiner(rows, single, side, room, columns, centre, block, dense)

    @cached_property
    def _grids(self) -> list[tuple[BoundStage, RowCache]]:
        room = int(self._memory * (1 - _SHARE_OF_ROWS))
        return grids_of(self._pooled, self._contents, self._weights, room)

    def _matrix_fits(self) -> bool:
        """Return whether memory suffices for `by_matrix`; a search by bounds needs fewer rows."""
        try:
            plan_matrix(self.count, self._row_bytes, self._memory)
        except UsageError:
            return False
        return True

    @cached_property
    def _cascade(self) -> Cascade:
        """All bound stages, prepared on first use."""
        stages = directions_of(self._features, self._contents, self._grids) + self._grids
        return Cascade(stages, self.count)

    def below(self, part: int, below: float) -> tuple[Close, Tally]:
        """Find the pairs closer than `below` of images in one part with later images.

        Returns
        -------
        Close
            The pairs (i, j), i < j, whose distance in the dense matrix is under `below`, sorted by
            i, then j. See `Refiner.below` for the distances.
        Tally
            The work done.
        """
        tally = Tally()
        return _in_order([close for close, _ in self._below(part, below, tally)]), tally

    def try_below(self, part: int, below: float, tally: Tally) -> Close | None:
        """Do the same as `below`; give up and return None once `below_by_matrix` is clearly faster.

        Cost is counted, not timed: the same search always gives up at the same place.
        """
        most = _WASTE * self.arithmetic
        # The first part is searched in small steps, so that giving up wastes little
        trying = part == 0 and self._matrix_fits()
        few = int(min(most, self.arithmetic)) // max(1, self._live) if trying else 0
        found, met = [], 0
        for close, out_of in self._below(part, below, tally, few):
            found.append(close)
            met += out_of
            if met < self._pairs_of(part) and tally.cost > most and not self.paid(met, tally):
                return None
        return _in_order(found)

    def paid(self, pairs: int, tally: Tally) -> bool:
        """Return whether the tallied work cost no more than computing `pairs` distances.

        Always true if there is no memory for the matrix.
        """
        return tally.cost <= pairs * self._live or not self._matrix_fits()

    def part_paid(self, part: int, tally: Tally) -> bool:
        """Return `paid` for a part that was searched; if false, later parts will not pay either."""
        return self.paid(self._pairs_of(part), tally)

    def _pairs_of(self, part: int) -> int:
        """Return the number of pairs of the blocks of a part with later ones."""
        first = part * _BLOCKS
        blocks = range(first, min(first + _BLOCKS, self._blocks))
        return sum(self._blocks - block for block in blocks) * BLOCK**2

    def _below(
        self, part: int, below: float, tally: Tally, few: int = 0
    ) -> Iterator[tuple[tuple[Pairs, NDArray[np.float32]], int]]:
        """Yield close pairs with their distances, and the number of pairs they were chosen from."""
        blocks = range(part * _BLOCKS, min((part + 1) * _BLOCKS, self._blocks))
        with self._features.clock("score"):
            reach = self._exact.dense.reach(np.full(self.count, below))
            for left in self._cascade.left(blocks, reach, tally, itself=True, few=few):
                pairs, _ = self._cascade.refined(*left, reach, tally)
                yield self._exact.below(pairs, below, tally), left[2]

    def bounds_pay(self, below: float, tally: Tally) -> bool:
        """Estimate from a sample of the images whether `try_below` is worth trying."""
        if self.count <= BLOCK or not self._matrix_fits():
            return True
        if not self._grids:
            return False
        chosen = central_numbers(self._features, self._contents, BLOCK)
        with self._features.clock("score"):
            limits = self._exact.dense.reach(np.full(len(chosen), below))
            return estimated_cost(*self._grids[-1], chosen, limits, tally) < 1

    def below_by_matrix(
        self, first: int, below: float, found: CandidateTiles, report: Report
    ) -> Tally:
        """Find candidates for the parts from `first` on by scoring the matrix without storing it.

        `decide` then finds out which candidates are close.

        Parameters
        ----------
        found
            From `candidates`; collects the candidates.
        """
        plan = plan_matrix(self.count, self._row_bytes, self._memory)
        score_matrix(self._features, self._contents, None, self._weights, plan, found, report)
        along = -(-(self.count - first * _BLOCKS * BLOCK) // self._block)
        return Tally(arithmetic=along * (along + 1) // 2 * self._block**2 * self._live)

    def candidates(
        self, first: int, below: float, save: Callable[[Pairs, Pairs], None]
    ) -> CandidateTiles:
        """Return the collector of candidates for the parts from `first` on."""
        plan = plan_matrix(self.count, self._row_bytes, self._memory)
        every = -(-len(plan.tiles()) // SAVES)
        return CandidateTiles(below, plan.tile, first * _BLOCKS * BLOCK, save, every)

    def decide(self, part: int, candidates: Pairs, below: float) -> tuple[Close, Tally]:
        """Return what `below` returns for a part whose candidates are known."""
        tally, numbers = Tally(), candidates[:, 0] // (_BLOCKS * BLOCK)
        pairs = candidates[numbers == part]
        cells = pairs // BLOCK  # rows read for one pair serve its neighbours
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0], cells[:, 1], cells[:, 0]))]
        with self._features.clock("score"):
            return _in_order([self._exact.decide(pairs, below, tally)]), tally

    def nearest(self, step: int, found: Neighbours, below: float) -> Tally:
        """Take one of `steps` steps of the search for the nearest neighbours of each image.

        First every block is compared with itself, so that each image has neighbours to begin with;
        then each block with all later ones, except pairs that bounds rule out for both images.

        Parameters
        ----------
        step
            0, 1, 2 and so on, in order.
        found
            The neighbours so far; those of this step are added, with the distances of the dense
            matrix.
        below
            Neighbours at this distance or farther are not needed; infinite for no limit.
        """
        tally, block = Tally(), step % self._blocks
        images = np.arange(block * BLOCK, min((block + 1) * BLOCK, self.count))
        with self._features.clock("score"):
            if step < self._blocks:
                self._compare(images, images, found, tally)
                return tally
            limits = self._limits(found, below)
            for left in self._cascade.left(range(block, block + 1), limits, tally, itself=False):
                self._meet(*left, found, below, tally)
        return tally

    def pays(self, most: int, below: float, tally: Tally) -> bool:
        """Estimate whether `nearest` finds the `most` nearest images faster than `by_matrix`.

        A sample of the images shows it: the neighbours of an image are about as far from it as the
        same share of the sample that is nearest to it. Where most pairs would have to be compared
        anyway, `by_matrix` is faster, if there is memory for it.
        """
        if not self._matrix_fits():
            return True
        if not self._grids:
            return False
        chosen = central_numbers(self._features, self._contents, self._side)
        rank = -(-most * len(chosen) // self.count)
        if rank >= len(chosen):
            return False
        rows = self._features.load([self._contents[number] for number in chosen])
        with self._features.clock("score"):
            distances = self._exact.among(rows, tally).cpu().numpy()
            # Rank 0 is the image itself; its first neighbour has rank 1
            reach = np.partition(distances, rank, axis=1)[:, rank].astype(np.float64)
            limits = self._exact.dense.reach(np.minimum(reach, below))
            return few_remain(*self._grids[-1], chosen, limits, tally)

    def by_matrix(
        self,
        found: Neighbours,
        done: set[tuple[int, int]],
        save: Callable[[], None],
        report: Report,
    ) -> Tally:
        """Find the nearest neighbours of each image by scoring the matrix without storing it.

        Parameters
        ----------
        found
            The neighbours so far.
        done
            Tiles of the matrix that `found` already includes; computed ones are added.
        save
            Called now and then, when `found` and `done` are consistent.

        Raises
        ------
        UsageError
            The memory is too small for the matrix; `pays` returns True then.
        """
        plan = plan_matrix(self.count, self._row_bytes, self._memory)
        every = -(-len(plan.tiles()) // SAVES)
        tiles = NeighbourTiles(found, plan.tile, done, save, every)
        score_matrix(self._features, self._contents, None, self._weights, plan, tiles, report)
        return Tally(arithmetic=self.arithmetic)

    def _meet(
        self,
        pairs: Pairs,
        bounds: Bounds,
        out_of: int,
        found: Neighbours,
        below: float,
        tally: Tally,
    ) -> None:
        """Compare the pairs left by the coarsest stage, as far as they can matter."""
        # Limits are loose until an image has been compared with its likely neighbours
        compared, pairs, bounds = self._promising(pairs, bounds, found, tally)
        self._cascade.pass_by(compared, tally)
        pairs, bounds = self._still(pairs, bounds, found, below)
        limits = self._limits(found, below)
        pairs, bounds = self._cascade.refined(pairs, bounds, out_of, limits, tally)
        while len(pairs):
            _, pairs, bounds = self._promising(pairs, bounds, found, tally)
            pairs, bounds = self._still(pairs, bounds, found, below)

    def _promising(
        self, pairs: Pairs, bounds: Bounds, found: Neighbours, tally: Tally
    ) -> tuple[int, Pairs, Bounds]:
        """Compare likely neighbours; return how many of the pairs these were, and the others."""
        if not len(pairs):
            return 0, pairs, bounds
        others = np.unique(pairs[:, 1])
        smallest = np.full(len(others), np.inf, np.float32)
        np.minimum.at(smallest, np.searchsorted(others, pairs[:, 1]), bounds)
        first = np.sort(others[np.argsort(smallest, kind="stable")[: self._side]])
        now = np.isin(pairs[:, 1], first)
        self._compare(np.unique(pairs[now, 0]), first, found, tally)
        return int(now.sum()), pairs[~now], bounds[~now]

    def _still(
        self, pairs: Pairs, bounds: Bounds, found: Neighbours, below: float
    ) -> tuple[Pairs, Bounds]:
        """Return the pairs that can still matter given what was found, and their bounds."""
        left = self._cascade.matters(bounds, self._limits(found, below), pairs)
        return pairs[left], bounds[left]

    def _compare(
        self,
        images: NDArray[np.int64],
        others: NDArray[np.int64],
        found: Neighbours,
        tally: Tally,
    ) -> None:
        """Compare two sets of images and offer the distances to `found` in both directions."""
        tops, lefts = (
            [numbers[start : start + self._side] for start in range(0, len(numbers), self._side)]
            for numbers in (images, others)
        )
        for top, left in product(tops, lefts):
            itself = np.array_equal(top, left)
            distances = self._exact.product(top, None if itself else left, tally)
            found.offer(top, left, distances)
            if not itself:
                found.offer(left, top, distances.T)

    def _limits(self, found: Neighbours, below: float) -> NDArray[np.float64]:
        return self._exact.dense.reach(np.minimum(found.reach(), below))


def _in_order(found: Sequence[tuple[Pairs, NDArray[np.float32]]]) -> Close:
    pairs, distances = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return Close(pairs[order, 0], pairs[order, 1], distances[order])


def rows_that_fit(row_bytes: int, memory: int) -> int:
    """Return how many rows to hold in memory at a time.

    Raises
    ------
    UsageError
        `memory` is too small for `_LEAST_ROWS` rows; the message gives the minimum.
    """
    per_row = row_bytes + _PANELS
    room = int(memory * _SHARE_OF_ROWS / per_row)
    if room < _LEAST_ROWS:
        need = int(_LEAST_ROWS * per_row / _SHARE_OF_ROWS / 1e6) + 1
        raise UsageError(
            f"{setting('memory')} is too small for rows of {row_bytes / 1e6:.3g} MB: it takes "
            f"{need}MB at least"
        )
    return room
