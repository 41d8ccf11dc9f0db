"""What `--dry-run` says with workers: the bytes that move, and the seconds that they share."""

import os
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from ...pipeline.common.tasks import Crew
from ...pipeline.matrix.plan import MatrixPlan, MatrixStep, Slab, shared
from .screen import Lines
from .settings import show_bytes

KEPT = 3 / 4  # of the memory of a task are for rows: see `lpipstore.pipeline.features.kept`


@dataclass(frozen=True)
class Shares:
    """The work of a run on workers.

    Attributes
    ----------
    workers
        Tasks that run side by side.
    local
        Whether they are processes of this machine, which share its cores.
    bytes_images, bytes_written
        Bytes of the images that workers decode, and of the rows that they write.
    bytes_read
        Of rows that they read, repeats included: each keeps what it has read while its memory
        lasts.
    bytes_returned
        Of the distances that they send to this process.
    seconds_of_one
        By stage, and in total: what one worker takes, as one thread was timed here.
    """

    workers: int
    local: bool
    bytes_images: int
    bytes_written: int
    bytes_read: int
    bytes_returned: int
    seconds_of_one: Mapping[str, float]

    @property
    def seconds(self) -> dict[str, float]:
        """By stage, and in total: if work is shared evenly, and disks and network keep up."""
        side_by_side = self.workers
        if self.local:
            side_by_side = min(side_by_side, len(os.sched_getaffinity(0)))
        return {name: seconds / side_by_side for name, seconds in self.seconds_of_one.items()}

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints under ``cluster``."""
        return dict(vars(self))

    def lines(self, most: str) -> Lines:
        """Return the shares as lines for people; `most` stands before what may be less."""
        moved = ", ".join(
            f"{name} {show_bytes(count)}"
            for name, count in (
                ("images", self.bytes_images),
                ("rows written", self.bytes_written),
                ("rows read", self.bytes_read),
                ("distances", self.bytes_returned),
            )
        )
        where = "on this machine" if self.local else "of the cluster"
        return [("workers", f"{self.workers:,} {where}"), ("moved", most + moved)]


def rows_for_workers(
    plan: MatrixPlan, todo: Set[tuple[int, int]], row_bytes: int, crew: Crew
) -> int:
    """Return how many rows the workers of a crew read at most for the tiles `todo` of a matrix.

    0 for a crew without memory of its own: it is this process.
    """
    if crew.memory is None:
        return 0
    cut = shared(plan, row_bytes, crew)
    slabs, asked = set[Slab](), 0
    for step in cut.steps():
        if cut.has(step, todo):
            slabs |= {step.down, step.across}
            asked += _rows(step)
    whole = sum(slab.stop - slab.start for slab in slabs)
    if whole * row_bytes <= crew.memory * KEPT:
        return min(asked, whole * crew.workers())
    return asked


def _rows(step: MatrixStep) -> int:
    return sum(slab.stop - slab.start for slab in {step.down, step.across})
