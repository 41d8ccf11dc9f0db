"""Score listed pairs from rows: products of blocks with many pairs, differences elsewhere."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..common.device import Ready
from ..common.fitting import until_it_fits
from ..common.progress import Report, silent
from ..common.tasks import Task, completed
from ..distances.distances import gram_distances
from ..distances.panels import Columns
from ..distances.scoring import Rows, Scoring, ready_of, task_of
from ..features.features import Features
from ..features.held import HeldRows
from .parts import begin_part, needed_by, parts_of
from .plan import ListPlan
from .schedule import Room, RowSet, bytes_of, room_for, room_on_device, steps

Arrive = Callable[[], Rows]
"""Waits until rows are there."""

_ON_THEIR_WAY = 8  # results that come from the device while it computes others


class Distances(Protocol):
    """Destination of distances: memory, or `lpipstore.pipeline.pairlists.file.DistanceFile`."""

    values: NDArray[np.float32]
    """One number for each of the plan's pairs; NaN where it is not yet known."""

    def put(self, pairs: NDArray[np.int64], distances: NDArray[np.float32]) -> None:
        """Set the distances of some pairs."""


@dataclass
class InMemory:
    """Distances kept in memory only."""

    values: NDArray[np.float32]

    def put(self, pairs: NDArray[np.int64], distances: NDArray[np.float32]) -> None:
        """Set the distances of some pairs."""
        self.values[pairs] = distances


class ListTarget(NamedTuple):
    """The column weights of a head, float32 [length], and the destination of its distances."""

    weights: NDArray[np.float32]
    distances: Distances


def score_list(
    features: Features,
    contents: Sequence[bytes],
    weights: NDArray[np.float32],
    plan: ListPlan,
    room: Room,
    distances: Distances,
    report: Report = silent,
    *,
    fast: bool = False,
) -> None:
    """Score the pairs of a plan under one head; see `score_lists`."""
    target = ListTarget(weights, distances)
    score_lists(features, contents, [target], plan, room, report, fast=fast)


def score_lists(
    features: Features,
    contents: Sequence[bytes],
    targets: Sequence[ListTarget],
    plan: ListPlan,
    room: Room,
    report: Report = silent,
    *,
    fast: bool = False,
) -> None:
    """Score all pairs of a plan whose distance is not yet known; all heads share one read of rows.

    Parameters
    ----------
    features
        Source of the rows.
    contents
        Content hash of each image that the plan was made for.
    targets
        The heads, and the destinations of their distances. The absolute error is about 1e-7; under
        `lpipstore.pipeline.distances.distances.DIRECT_BELOW` the relative error is about 1e-6.
    plan, room
        What to score, and what fits in memory.
    fast
        As for `lpipstore.pipeline.distances.distances.gram_distances`.
    """
    known = np.stack([~np.isnan(target.distances.values) for target in targets])
    report("pairs", int(known.sum()), known.size)
    if not known.all():
        work = _Work(features, contents, targets, plan, room, report, fast)
        until_it_fits(features.device, features.room(), work.placed, work.score)


@dataclass(frozen=True)
class _Work:
    """What `score_lists` was given. It can begin again at any time: NaN are left to be scored."""

    features: Features
    contents: Sequence[bytes]
    targets: Sequence[ListTarget]
    plan: ListPlan
    room: Room
    report: Report
    fast: bool

    def placed(self, memory: int | None) -> tuple[Room, int]:
        """Return what fits in `memory` of the device, or of each worker, and the bytes of that."""
        room, block, crew = self.room, self.plan.block, self.features.crew
        row_bytes = self.features.extractor.spec.row_bytes
        if crew.elsewhere:
            of_task = crew.within(memory).memory
            room = room if of_task is None else room_for(of_task, row_bytes, block)
        elif memory is not None:
            room = room_on_device(memory, row_bytes, block)
        return room, bytes_of(room, len(self.plan.rows), row_bytes, block)

    def score(self, room: Room) -> None:
        """Score the pairs that are left."""
        features = self.features
        unknown = np.stack([np.isnan(target.distances.values) for target in self.targets])
        done = int((~unknown).sum())
        rows = HeldRows[RowSet, Arrive](self._send, self._stored if room.ahead else None)
        waiting: deque[tuple[tuple[int, NDArray[np.int64]], Ready]] = deque()

        def put(most: int) -> None:
            nonlocal done
            while len(waiting) > most:
                (number, pairs), ready = waiting.popleft()
                with features.clock("score"):
                    distances = ready()
                self.targets[number].distances.put(pairs, distances)
                done += len(pairs)
                self.report("pairs", done, unknown.size)

        with rows.reading():
            scored = completed(
                features.crew,
                self._tasks(room, rows, unknown),
                lambda: features.clock("score"),
                mend=features.mend,
            )
            for label, result in scored:
                waiting.append((label, ready_of(result)))
                put(0 if features.device.local else _ON_THEIR_WAY)
            put(0)

    def _tasks(
        self, room: Room, rows: HeldRows[RowSet, Arrive], unknown: NDArray[np.bool_]
    ) -> Iterator[Task[tuple[int, NDArray[np.int64]]]]:
        features, plan, crew = self.features, self.plan, self.features.crew
        spec, where = features.extractor.spec, features.extractor.device
        centre = features.centre([self.contents[n] for n in plan.rows])
        scorings = [
            Scoring(Columns.of(target.weights, spec.dtype, where), centre, plan.block, self.fast)
            for target in self.targets
        ]
        some = steps(plan, np.flatnonzero(unknown.any(0)), room)
        for step, following in pairwise(chain(some, [None])):
            assert step is not None
            streamed = following is not None and following.left is step.left
            soon = following.sides if streamed and following is not None else ()
            left, *others = (arrive() for arrive in rows.get(step.sides, soon))
            right = others.pop() if others else None
            for number, (scoring, wanted) in enumerate(zip(scorings, unknown, strict=True)):
                mine = replace(step, pairs=step.pairs[wanted[step.pairs]])
                for part in parts_of(plan, mine, room):
                    needed = needed_by(part, left, right) if crew.elsewhere else (left, right, part)
                    yield task_of(crew, (number, part.pairs), begin_part, *needed, scoring)
                    del needed
            del left, right  # freed before the next are loaded

    def _named(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Return the content hashes of rows of the plan."""
        return [self.contents[number] for number in self.plan.rows[rows]]

    def _stored(self, which: RowSet) -> bool:
        return self.features.stored(self._named(which.rows))

    def _send(self, which: RowSet) -> Arrive:
        """Begin to upload rows; or find out where they lie, for workers."""
        features = self.features
        if features.crew.elsewhere:
            located = features.locate(self._named(which.rows))
            return lambda: located
        return features.send(self._named(which.rows), self.room.rows)


def fast_list_error(
    features: Features, contents: Sequence[bytes], weights: NDArray[np.float32], plan: ListPlan
) -> float:
    """Return the largest difference that ``fast`` makes among the pairs of a plan's first product.

    0 for a plan without products: single pairs are computed from differences.
    """
    dense = np.flatnonzero(plan.dense)
    if not len(dense):
        return 0.0
    cell = dense[0]
    starts = plan.cells[cell] * plan.block
    sides = [plan.rows[start : start + plan.block] for start in np.unique(starts)]
    rows = [features.load([contents[n] for n in side]) for side in sides]
    columns = Columns.of(weights, features.extractor.spec.dtype, rows[0].device)
    centre = features.centre([contents[n] for n in plan.rows])
    other = rows[1] if len(rows) > 1 else None
    fast, exact = (
        gram_distances(rows[0], other, columns, centre, plan.block, fast=fast)
        for fast in (True, False)
    )
    places = torch.from_numpy(plan.pairs[plan.cell_of == cell] - starts).to(fast.device)
    return float((fast - exact)[places[:, 0], places[:, 1]].abs().max())
