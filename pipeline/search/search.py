"""Find close pairs and nearest neighbours without the full matrix, in one collection or across two.

A search across two collections is one among the images of both, of which only the pairs across them
count (`Sides`). Everything else is the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.errors import UsageError
from ..common.progress import Report
from ..distances.distances import block_of
from ..distances.panels import Columns, live
from ..distances.scoring import Scoring
from ..features.features import Features
from ..features.pooled import PooledRows
from ..features.rowcache import Pairs, RowCache, SingleRows
from ..matrix.plan import MatrixPlan, plan_matrix
from ..matrix.score import Matrix, score_matrix
from .blocks import BLOCK
from .bound_rows import central_numbers, directions_of, grids_of
from .bounds import BoundStage, DenseError
from .candidates import CandidateTiles
from .cascade import Cascade, Tally
from .close import Close, Effort, close_in_part, in_order
from .nearest import nearest_in_step
from .refine import Refiner
from .room import SearchRoom
from .sampling import Sample, estimated_cost, few_remain
from .sides import Sides
from .topk import SAVES, Neighbours, NeighbourTiles

T = TypeVar("T")

_BLOCKS = 4  # searched for close pairs together: few calls on many pairs
_SAMPLED = 8  # of the second side one image in so many is sampled for its neighbours at most
_FEWEST = 16  # but so many images are
_WASTE = 0.05  # share of the matrix's cost that may go into a part that is given up


class Search:
    """A collection under one head, ready to be searched.

    Parameters
    ----------
    features, pooled
        Sources of rows and pooled rows; `pooled` has no grids if the head has negative weights.
    contents
        Content hash of each image; with two sides, those of the first come first.
    weights
        Column weights of the head, float32 [length].
    memory
        Bytes for rows and pooled rows.
    revisit
        Whether rows are needed repeatedly, as for nearest neighbours.
    first
        Number of images of the first side; None searches the pairs of one collection.

    Attributes
    ----------
    sides
        The pairs that are searched.
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
        first: int | None = None,
    ) -> None:
        self.sides = sides = Sides(len(contents), first)
        extractor = features.extractor
        spec = extractor.spec
        columns = Columns.of(weights, spec.dtype, extractor.device)
        block = block_of(sides.longest, spec.row_bytes)
        self._features, self._pooled, self._contents = features, pooled, contents
        self._weights, self._memory, self._row_bytes = weights, memory, spec.row_bytes
        self.parts = -(-sides.blocks // _BLOCKS)
        self.steps = 2 * sides.blocks
        self._block, self._live = block, live(columns)
        self.arithmetic = self._arithmetic_from(0)

        self._dense = DenseError.of(weights, extractor.layout, spec.dtype, columns)
        self._columns, self._revisit = columns, revisit
        self._room = SearchRoom(features, memory)

    @cached_property
    def _exact(self) -> Refiner:
        """The rows, in the memory of the device."""
        features, sides = self._features, self.sides
        spec, where = features.extractor.spec, features.extractor.device
        room, at_once = self._room.rows, self._room.at_once
        # Cached rows take memory beside the two blocks that are being compared
        side = min(BLOCK, 1 << (room // (4 if self._revisit else 2)).bit_length() - 1)
        held = room - 2 * side if self._revisit else room
        stored = _StoredRows(features, self._contents)
        rows = RowCache(
            stored.rows, sides.count, side, held, where, whole=self._revisit, at_once=at_once
        )
        single = SingleRows(stored.read, sides.count, room, spec.length, spec.dtype, where, at_once)
        scoring = Scoring(self._columns, features.centre(self._contents), self._block)
        return Refiner(rows, single, side, room, scoring, self._dense, sides)

    def _counted(self, work: Callable[[Tally], T], tally: Tally) -> T:
        """Do work on the device; the tally counts it once, even if memory runs out there."""

        def attempt() -> tuple[T, Tally]:
            own = tally.copy()
            return work(own), own

        with self._features.clock("score"):
            result, taken = self._room.fit(attempt, self._release)
        vars(tally).update(vars(taken))
        return result

    def _release(self) -> None:
        """Let go of all rows and bounds, which are read again when they are needed."""
        for name in ("_exact", "_grids", "_cascade"):
            vars(self).pop(name, None)

    @cached_property
    def _grids(self) -> list[tuple[BoundStage, RowCache]]:
        memory, room = self._room.for_pooled
        return grids_of(self._pooled, self._contents, self._weights, memory, room)

    def _matrix_fits(self) -> bool:
        """Return whether memory suffices for `by_matrix`; a search by bounds needs fewer rows."""
        try:
            self._plan()
        except UsageError:
            return False
        return True

    def _plan(self) -> MatrixPlan:
        """Plan the dense matrix; raises `UsageError` where memory is too small."""
        columns = None if self.sides.single else self.sides.neighbours
        plan = plan_matrix(self.sides.searched, self._row_bytes, self._memory, columns=columns)
        self._room.check(plan)
        return plan

    def _score_matrix(self, plan: MatrixPlan, found: Matrix, report: Report) -> None:
        """Score the matrix into `found`, which keeps what it wants of it."""
        if self._room.own:  # the matrix takes the memory of the device
            self._release()
        near = self.sides.searched
        down, across = self._contents[:near], None if self.sides.single else self._contents[near:]
        score_matrix(self._features, down, across, self._weights, plan, found, report)

    def _arithmetic_from(self, image: int) -> int:
        """Return the multiply-adds of the dense matrix from an image of its rows on."""
        down, block = -(-(self.sides.searched - image) // self._block), self._block
        if self.sides.single:
            return down * (down + 1) // 2 * block**2 * self._live
        return down * -(-self.sides.neighbours // block) * block**2 * self._live

    @cached_property
    def _cascade(self) -> Cascade:
        """All bound stages, prepared on first use."""
        stages = directions_of(self._features, self._contents, self._grids) + self._grids
        return Cascade(stages, self.sides)

    def below(self, part: int, below: float) -> tuple[Close, Tally]:
        """Find the pairs closer than `below` of images in one part with their partners.

        See `close_in_part`, which this returns the result of.
        """
        blocks = self._blocks_of(part)
        tally = Tally()
        close = self._counted(
            lambda own: close_in_part(self._cascade, self._exact, blocks, below, own)[0], tally
        )
        return cast(Close, close), tally  # it is never given up

    def try_below(self, part: int, below: float, tally: Tally) -> Close | None:
        """Do the same as `below`; give up and return None once `below_by_matrix` is clearly faster.

        See `Effort` for when that is.
        """
        blocks, effort = self._blocks_of(part), None
        if self._matrix_fits():
            most = _WASTE * self.arithmetic
            # The first part is searched in small steps, so that giving up wastes little
            few = int(min(most, self.arithmetic)) // max(1, self._live) if part == 0 else 0
            effort = Effort(most, self._pairs_of(part), self._live, few)
        return self._counted(
            lambda own: close_in_part(self._cascade, self._exact, blocks, below, own, effort)[0],
            tally,
        )

    def paid(self, pairs: int, tally: Tally) -> bool:
        """Return whether the tallied work cost no more than computing `pairs` distances.

        Always true if there is no memory for the matrix.
        """
        return tally.cost <= pairs * self._live or not self._matrix_fits()

    def part_paid(self, part: int, tally: Tally) -> bool:
        """Return `paid` for a part that was searched; if false, later parts will not pay either."""
        return self.paid(self._pairs_of(part), tally)

    def _pairs_of(self, part: int) -> int:
        """Return the number of pairs of the blocks of a part with their partners."""
        return sum(len(self.sides.partners(block)) for block in self._blocks_of(part)) * BLOCK**2

    def _blocks_of(self, part: int) -> range:
        return range(part * _BLOCKS, min((part + 1) * _BLOCKS, self.sides.blocks))

    def bounds_pay(self, below: float, tally: Tally) -> bool:
        """Estimate from a sample of the images whether `try_below` is worth trying."""
        if self.sides.longest <= BLOCK or not self._matrix_fits():
            return True
        if not self._grids:
            return False
        sample = self._sample(BLOCK)
        limits = self._dense.reach(np.full(len(sample.images), below))
        return self._counted(
            lambda own: estimated_cost(*self._grids[-1], sample, limits, own) < 1, tally
        )

    def _sample(self, count: int) -> Sample:
        """Choose up to `count` images of each side to stand for it."""
        near = self.sides.searched
        images = central_numbers(self._features, self._contents[:near], count)
        if self.sides.single:
            return Sample(images)
        others = central_numbers(self._features, self._contents[near:], count)
        return Sample(images, others + near)

    def _rows_of(self, images: NDArray[np.int64]) -> torch.Tensor:
        return self._features.load([self._contents[number] for number in images])

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
        self._score_matrix(self._plan(), found, report)
        return Tally(arithmetic=self._arithmetic_from(first * _BLOCKS * BLOCK))

    def candidates(
        self, first: int, below: float, save: Callable[[Pairs, Pairs], None]
    ) -> CandidateTiles:
        """Return the collector of candidates for the parts from `first` on."""
        plan, start = self._plan(), self.sides.start
        every = -(-len(plan.tiles()) // SAVES)
        return CandidateTiles(below, plan.tile, first * _BLOCKS * BLOCK, save, every, start)

    def decide(self, part: int, candidates: Pairs, below: float) -> tuple[Close, Tally]:
        """Return what `below` returns for a part whose candidates are known."""
        tally, numbers = Tally(), candidates[:, 0] // (_BLOCKS * BLOCK)
        pairs = candidates[numbers == part]
        cells = pairs // BLOCK  # rows read for one pair serve its neighbours
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0], cells[:, 1], cells[:, 0]))]
        found = self._counted(lambda own: self._exact.decide(pairs, below, own), tally)
        return in_order([found]), tally

    def nearest(self, step: int, found: Neighbours, below: float) -> Tally:
        """Take one of `steps` steps of the search for the nearest neighbours of each image.

        See `nearest_in_step`; `found` is updated.
        """
        with self._features.clock("score"):
            return self._room.fit(
                lambda: nearest_in_step(self._cascade, self._exact, step, found, below),
                self._release,
            )[1]

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
        single = self.sides.single
        if not single and self.sides.longest <= self._exact.side:
            return False  # one product is all there is
        sample = self._sample(self._exact.side)
        beyond = sample.images
        if sample.others is not None:  # a sample of both sides costs the more, the smaller they are
            few = max(_FEWEST, self.sides.neighbours // _SAMPLED)
            beyond = sample.others[:: -(-len(sample.others) // few)]
            sample = Sample(sample.images, beyond)
        # Among one collection rank 0 is the image itself, and its first neighbour has rank 1
        rank = -(-most * len(beyond) // (self.sides.count - self.sides.start)) - (not single)
        if rank >= len(beyond):
            return False

        def small(own: Tally) -> bool:
            rows = self._rows_of(sample.images)
            others = None if sample.others is None else self._rows_of(sample.others)
            distances = self._exact.among(rows, others, own).cpu().numpy()
            reach = np.partition(distances, rank, axis=1)[:, rank].astype(np.float64)
            limits = self._dense.reach(np.minimum(reach, below))
            return few_remain(*self._grids[-1], sample, limits, own)

        return self._counted(small, tally)

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
        plan, second = self._plan(), self.sides.first
        every = -(-len(plan.tiles()) // SAVES)
        tiles = NeighbourTiles(found, plan.tile, done, save, every, second)
        self._score_matrix(plan, tiles, report)
        return Tally(arithmetic=self.arithmetic)


@dataclass(frozen=True)
class _StoredRows:
    """Reads the rows of a collection by the numbers of its images."""

    features: Features
    contents: Sequence[bytes]

    def rows(self, which: NDArray[np.int64]) -> NDArray[np.generic]:
        """Return rows, [n, length]."""
        return self.features.rows([self.contents[number] for number in which])

    def read(self, which: NDArray[np.int64], out: NDArray[np.generic]) -> None:
        """Write rows to `out`, [n, length]."""
        self.features.read([self.contents[number] for number in which], out)
