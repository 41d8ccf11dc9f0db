"""The columns of stored rows that a head gives weight, cut into panels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..common.by_value import ByValue
from ..features.rows import STEPS
from .threads import THREADS

WHOLE = 384
"""Columns that MKL's products sum at a time: sums over a multiple of it have the same bits whatever
the shape of the product."""

PANEL = 10 * WHOLE  # columns of a float32 product: enough to be fast, few enough to be exact
_SHORTEST_GAP = 64  # fewest dead columns that are worth a cut between live ones


@dataclass(frozen=True)
class Columns(ByValue):
    """The column weights of a head, prepared for products of stored rows.

    Columns of weight 0 are left out, short gaps excepted: they are a third of AlexNet's at 64
    pixels (stock head). Each panel is a list of column ranges; `roots` and `signs` follow its
    columns in order.

    Attributes
    ----------
    panels
        Ranges of live columns, `PANEL` columns at most in each panel.
    roots
        For each panel float32 [width]: √|v|, divided by the steps of the row dtype.
    signs
        For each panel float32 [width] of ±1, or None for a head without negative weights.
    heaviest_first
        Panel numbers, by decreasing sum of absolute weights.
    """

    panels: tuple[tuple[slice, ...], ...]
    roots: tuple[torch.Tensor, ...]
    signs: tuple[torch.Tensor, ...] | None
    heaviest_first: tuple[int, ...]

    @property
    def device(self) -> torch.device:
        """Where the numbers are; of a head without weights, the CPU."""
        return self.roots[0].device if self.roots else torch.device("cpu")

    @classmethod
    def of(cls, weights: NDArray[np.float32], dtype: str, device: torch.device) -> "Columns":
        """Prepare the column weights of a head (see `column_weights`) for rows of `dtype`."""
        panels = tuple(_panels(weights != 0))
        negative = bool((weights < 0).any())
        roots, signs, sums = [], [], []
        for panel in panels:
            # Per panel: all columns of a long row take hundreds of megabytes in float64
            live = np.concatenate([weights[columns] for columns in panel]).astype(np.float64)
            scaled = (np.sqrt(np.abs(live)) / STEPS[dtype]).astype(np.float32)
            roots.append(torch.from_numpy(scaled).to(device))
            sums.append(np.abs(live).sum())
            if negative:
                signs.append(torch.from_numpy(np.sign(live).astype(np.float32)).to(device))
        order = np.argsort(sums, kind="stable")[::-1].tolist()
        return cls(panels, tuple(roots), tuple(signs) if negative else None, tuple(order))


def _panels(live: NDArray[np.bool_]) -> Iterator[tuple[slice, ...]]:
    """Cut the live columns into panels, bridging gaps that are too short to be worth a cut."""
    edges = np.flatnonzero(np.diff(live, prepend=False, append=False))
    starts, stops = edges[::2].tolist(), edges[1::2].tolist()
    runs: list[list[int]] = []
    for start, stop in zip(starts, stops, strict=True):
        if runs and start - runs[-1][1] < _SHORTEST_GAP:
            runs[-1][1] = stop
        else:
            runs.append([start, stop])
    width = _width(sum(stop - start for start, stop in runs))
    panel: list[slice] = []
    room = width
    for run_start, run_stop in runs:
        start = run_start
        while start < run_stop:
            stop = min(start + room, run_stop)
            panel.append(slice(start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield tuple(panel)
                panel, room = [], width
    if panel:
        yield tuple(panel)


def _width(live: int) -> int:
    """Return the panel width that gives equally wide panels, equally many for each thread."""
    if live <= PANEL:
        return PANEL
    rounds = -(-live // (PANEL * THREADS))
    return -(-live // (rounds * THREADS * WHOLE)) * WHOLE


def take(rows: torch.Tensor, panel: Sequence[slice], out: torch.Tensor) -> torch.Tensor:
    """Copy the columns of a panel into the first rows of `out`, converted to its dtype."""
    start = 0
    for columns in panel:
        stop = start + columns.stop - columns.start
        out[: len(rows), start:stop].copy_(rows[:, columns])
        start = stop
    return out


def widest(columns: Columns) -> int:
    """Return the number of terms in the longest float32 sum."""
    return max((len(roots) for roots in columns.roots), default=1)


def live(columns: Columns) -> int:
    """Return the number of columns in all panels."""
    return sum(len(roots) for roots in columns.roots)
