"""Score listed pairs from rows: products of blocks with many pairs, differences elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..common.progress import Report, silent
from ..common.tasks import Task, completed
from ..distances.distances import gram_distances
from ..distances.panels import Columns
from ..distances.scoring import Rows, Scoring
from ..features.features import Features
from ..features.held import HeldRows
from .parts import needed_by, parts_of, score_part
from .plan import ListPlan
from .schedule import Room, RowSet, room_for, steps


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
    unknown = np.stack([np.isnan(target.distances.values) for target in targets])
    total, done = unknown.size, int((~unknown).sum())
    report("pairs", done, total)
    todo = np.flatnonzero(unknown.any(0))
    if not len(todo):
        return
    device, spec = features.extractor.device, features.extractor.spec

    centre = features.centre([contents[n] for n in plan.rows])
    scorings = [
        Scoring(Columns.of(target.weights, spec.dtype, device), centre, plan.block, fast)
        for target in targets
    ]

    crew = features.crew
    if crew.memory is not None:
        room = room_for(crew.memory, spec.row_bytes, plan.block)
    rows = HeldRows[RowSet, Rows](
        lambda which: features.supply([contents[n] for n in plan.rows[which.rows]])
    )

    def tasks() -> Iterator[Task[tuple[int, NDArray[np.int64]]]]:
        for step in steps(plan, todo, room):
            sides = (step.left,) if step.right is None else (step.left, step.right)
            left, *others = rows.get(sides)
            right = others.pop() if others else None
            for number, (scoring, wanted) in enumerate(zip(scorings, unknown, strict=True)):
                mine = replace(step, pairs=step.pairs[wanted[step.pairs]])
                for part in parts_of(plan, mine, room):
                    needed = needed_by(part, left, right) if crew.elsewhere else (left, right, part)
                    yield Task((number, part.pairs), score_part, (*needed, scoring))
                    del needed
            del left, right  # freed before the next are loaded

    scored = completed(crew, tasks(), lambda: features.clock("score"), mend=features.mend)
    for (number, pairs), distances in scored:
        targets[number].distances.put(pairs, distances)
        done += len(pairs)
        report("pairs", done, total)


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
