"""Plan how the rows of a matrix come to the device that scores it, as often as its memory demands.

A device that holds more rows than this machine's memory takes whole slabs, read and uploaded a
share at a time. One that holds fewer takes parts of the slabs that are in memory: the steps of
a matrix, once more inside each step. No bit depends on it: tile and block stay.
"""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace

import torch

from ..common.budget import Budget
from ..common.device import rows_at_once
from ..distances import kernels
from .plan import SIDES, MatrixPlan, MatrixStep, Slab, fitted, in_order, loaded, work_of

CPU = torch.device("cpu")

RESULTS = 2
"""Pieces whose distances may be on their way from a device while the next one is computed."""

_LARGE_SIDES = (8192, 4096, *SIDES)
_RESULT_BYTES = 4 * (RESULTS + 1)  # of one pair: float32 distances in so many pieces


@dataclass(frozen=True)
class Placing:
    """Where the rows of a matrix are while they are scored.

    Attributes
    ----------
    plan
        The matrix. Its slabs are in this machine's memory, or on the device if that holds as many
        rows; its pieces are those of the device.
    part
        Rows of either side on the device at a time: those of a slab, or fewer.
    at_once
        Rows that are read and uploaded together.
    ahead
        Whether the device has memory for the next part while two are scored.
    need
        Bytes that the device needs.
    """

    plan: MatrixPlan
    part: int
    at_once: int
    ahead: bool
    need: int

    @property
    def inside(self) -> bool:
        """Whether parts for the device are cut from slabs that are in this machine's memory."""
        return self.part < self.plan.slab

    def steps(self, todo: Set[tuple[int, int]]) -> Iterator[tuple[MatrixStep, MatrixStep]]:
        """Yield the steps with tiles `todo`: of slabs, and of the parts on the device."""
        held: tuple[Slab, ...] = ()
        for step in self.plan.steps():
            if not self.plan.has(step, todo):
                continue
            for inner in self._inside(step, held):
                if self.plan.has(inner, todo):
                    held = inner.down, inner.across
                    yield step, inner

    def _inside(self, step: MatrixStep, held: Sequence[Slab]) -> Iterator[MatrixStep]:
        """Yield the steps of parts inside a step; each side begins with a part that is held."""
        if not self.inside:
            yield step
            return
        down, across = (slab.cut(self.part) for slab in (step.down, step.across))
        if step.down == step.across:
            yield from in_order(down, None)
        else:
            sides = (side[::-1] if side[-1] in held else side for side in (down, across))
            yield from in_order(*sides)

    def uploads(self, todo: Set[tuple[int, int]]) -> Iterator[Slab]:
        """Yield what is uploaded, in that order, to score the tiles `todo`."""
        for part in loaded(inner for _, inner in self.steps(todo)):
            yield from part.cut(self.at_once)


def placed_here(plan: MatrixPlan, row_bytes: int) -> Placing:
    """Return the placing for a device that uses this machine's memory: nothing is copied."""
    need = 2 * plan.slab * row_bytes + work_of(plan.block, row_bytes)(plan.piece)
    return Placing(plan, plan.slab, plan.slab, plan.ahead, need)


def placed(
    plan: MatrixPlan, row_bytes: int, room: int | None, where: torch.device = CPU
) -> Placing:
    """Return the placing for a device with `room` bytes; None is this machine's memory.

    `where` is the device as torch names it: its kernel says what products take.

    Raises
    ------
    TooLittle
        `room` is too small; the message gives the minimum.
    """
    if room is None:
        return placed_here(plan, row_bytes)
    return placed_on_device(plan, row_bytes, room, where)


def placed_on_device(
    plan: MatrixPlan, row_bytes: int, room: int, where: torch.device = CPU
) -> Placing:
    """Plan for a device with `room` bytes; `plan` is that of this machine's memory.

    Raises
    ------
    TooLittle
        `room` is too small; the message gives the minimum.
    """
    beside, kernel = work_of(plan.block, row_bytes), kernels.kernel_of(where)

    def work(piece: int) -> int:
        return beside(piece) + kernel.bytes(piece)

    # The distances of large pieces arrive in the memory that the plan leaves for arithmetic
    sides = [side for side in _LARGE_SIDES if _RESULT_BYTES * side**2 <= work(plan.piece)]
    budget = Budget(room, row_bytes, name="device_memory")
    fit = fitted(plan, budget, lambda piece: work(piece) + _RESULT_BYTES * piece**2, sides)
    at_once = rows_at_once(plan.slab, row_bytes)
    placed = replace(plan, piece=fit.piece)
    if fit.slab >= plan.slab:
        placed = replace(placed, slab=fit.slab, ahead=fit.ahead)
    return Placing(placed, fit.slab, at_once, fit.ahead, fit.need)
