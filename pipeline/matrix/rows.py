"""The rows of a matrix, step by step: on the device that scores them, or by where they lie."""

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from itertools import groupby, zip_longest
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..distances.scoring import Rows
from ..features.features import Features
from ..features.held import HeldRows
from .placing import Placing
from .plan import MatrixStep, Slab

Arrive = Callable[[], Rows]
"""Waits until rows are there."""


class PlacedRows:
    """Rows as a placing has them: `HeldRows` on the device, perhaps inside `HeldRows` of slabs.

    Parameters
    ----------
    features
        Source of the rows.
    contents
        Returns the content hashes of a range of rows.
    placing
        What is where, and when.
    """

    def __init__(
        self, features: Features, contents: Callable[[Slab], Sequence[bytes]], placing: Placing
    ) -> None:
        self._features, self._contents, self._placing = features, contents, placing

        def stored(slab: Slab) -> bool:
            return features.stored(contents(slab))

        self._here: dict[Slab, NDArray[Any]] = {}
        self._slabs = HeldRows[Slab, NDArray[Any]](
            lambda slab: features.rows(contents(slab)), stored if placing.plan.ahead else None
        )
        at_hand = (lambda part: True) if placing.inside else stored
        self._parts = HeldRows[Slab, Arrive](self._send, at_hand if placing.ahead else None)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Run the threads that read and upload ahead; all rows are let go at the end."""
        try:
            with self._slabs.reading(), self._parts.reading():
                yield
        finally:
            self._here.clear()

    def steps(self, todo: Set[tuple[int, int]]) -> Iterator[tuple[MatrixStep, Rows, Rows]]:
        """Yield the steps with tiles `todo`, and the rows down and across.

        Callers let go of the rows before they take the next step.
        """
        steps = groupby(self._placing.steps(todo), itemgetter(0))
        outer = [(step, [inner for _, inner in some]) for step, some in steps]
        for (step, parts), following in zip_longest(outer, outer[1:]):
            after = None if following is None else following[0]
            soon = parts[1:]
            if self._placing.inside:
                self._load(step, after)
            elif after is not None:
                soon = [after]
            for part, next_part in zip_longest(parts, soon):
                coming = () if next_part is None else _sides(next_part)
                one, other = (arrive() for arrive in self._parts.get(_sides(part), coming))
                yield part, one, other
                del one, other

    def _load(self, step: MatrixStep, after: MatrixStep | None) -> None:
        """Have the slabs of a step in this machine's memory, and read those of the next ahead."""
        self._here.clear()
        coming = () if after is None else _sides(after)
        slabs = _sides(step)
        self._here.update(zip(slabs, self._slabs.get(slabs, coming), strict=True))

    def _send(self, part: Slab) -> Arrive:
        """Begin to upload a part; or find out where its rows lie, for workers."""
        features = self._features
        if features.crew.elsewhere:
            located = features.locate(self._contents(part))
            return lambda: located
        shares = part.cut(self._placing.at_once)
        return features.device.send(map(self._read, shares), part.stop - part.start)

    def _read(self, share: Slab) -> NDArray[np.generic]:
        for slab, rows in self._here.items():
            if slab.across == share.across and slab.start <= share.start < slab.stop:
                return rows[share.start - slab.start : share.stop - slab.start]
        return self._features.rows(self._contents(share))


def _sides(step: MatrixStep) -> tuple[Slab, Slab]:
    return step.down, step.across
