"""How different the images of each group are from one another."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .....pipeline.runs.files import GROUPS, PAIRS
from .....pipeline.runs.reopen import reading
from ..contract import Content, Subject
from ..names import short_folders
from ..spread import Pair

_SHOWN = 40  # groups with a dot and pairs
_TABLE = 1000  # groups in the table
_TICKS = 5


@dataclass(frozen=True)
class _Group:
    """A line of ``groups.parquet``; what is not defined for few images is None."""

    name: str
    label: str
    images: int
    pairs: int
    mean: float | None
    std: float | None
    stderr: float | None


class Diversity:
    """Each group's mean distance with its standard error, its closest and its farthest pair."""

    name = "diversity"
    title = "Diversity"
    kinds = ("groups",)

    def content(self, subject: Subject) -> Content:
        """Return the groups, the most diverse first."""
        groups = _groups(subject)
        known = sorted(
            (group for group in groups if group.mean is not None), key=lambda g: -(g.mean or 0)
        )
        shown = known if len(known) <= _SHOWN else known[: _SHOWN // 2] + known[-_SHOWN // 2 :]
        overall = subject.run.summary["groups"]
        axis = _Axis.of(shown, overall["mean"], overall["stderr"])
        extremes = _extremes(subject)
        rows = [_row(group, axis, extremes.get(group.name), subject) for group in shown]
        band = None
        if overall["stderr"] is not None:
            ends = (overall["mean"] + sign * overall["stderr"] for sign in (-1, 1))
            low, high = map(axis.place, ends)
            band = {"at": low, "wide": high - low}
        return Content(
            "The mean distance between the images of a group says how diverse they are; bars are "
            "± 1 standard error over images. Where bars overlap widely, groups hardly differ.",
            {
                "rows": rows,
                "hidden": len(known) - len(shown),
                "ticks": [(axis.place(tick), f"{tick:g}") for tick in axis.ticks],
                "overall": overall["mean"],
                "overall_stderr": overall["stderr"],
                "overall_at": axis.place(overall["mean"]),
                "band": band,
                "alone": [group.label for group in groups if group.mean is None][:_SHOWN],
                "alone_count": len(groups) - len(known),
                "scored": len(known),
                "table": [*_lines([*known, *(g for g in groups if g.mean is None)])][:_TABLE],
                "more": max(0, len(groups) - _TABLE),
            },
        )


@dataclass(frozen=True)
class _Axis:
    """A scale of distances from `low` to `high`, with round numbers at its ticks."""

    low: float
    high: float
    ticks: list[float]

    @classmethod
    def of(cls, groups: list[_Group], mean: float, stderr: float | None) -> "_Axis":
        """Choose a scale that holds all dots with their bars, and the overall mean."""
        spans = [(group.mean or 0.0, group.stderr or 0.0) for group in groups]
        spans.append((mean, stderr or 0.0))
        low, high = min(m - e for m, e in spans), max(m + e for m, e in spans)
        rough = max(high - low, 1e-3) / (_TICKS - 1)
        power = 10.0 ** np.floor(np.log10(rough))
        unit = float(next(f for f in (1, 2, 5, 10) if f * power >= rough) * power)
        first, last = np.floor(low / unit), np.ceil(high / unit)
        last = max(last, first + 1)
        ticks = [round(float(n * unit), 9) for n in np.arange(first, last + 1)]
        return cls(ticks[0], ticks[-1], ticks)

    def place(self, distance: float) -> float:
        """Return where a distance stands, in percent of the plot's width."""
        return round(2 + 96 * (distance - self.low) / (self.high - self.low), 3)


def _groups(subject: Subject) -> list[_Group]:
    with reading(subject.run, GROUPS):
        table = subject.run.groups
        names = table["group"].to_pylist()
        labels = short_folders(names)
        columns = [table[c].to_pylist() for c in ("images", "pairs", "mean", "std", "stderr")]
    return [_Group(*line) for line in zip(names, labels, *columns, strict=True)]


def _extremes(subject: Subject) -> dict[str, tuple[Pair, Pair]]:
    """Return the closest and the farthest pair of each group, by its name."""
    couples, run = subject.couples, subject.run
    with reading(run, PAIRS):
        scored = run.pairs.filter(run.pairs["distance"].is_valid())
        coded = scored["group"].combine_chunks().dictionary_encode()
    codes: NDArray[np.int64] = np.asarray(coded.indices, np.int64)
    order = np.lexsort((couples.distances, codes))
    starts = np.searchsorted(codes[order], np.arange(len(coded.dictionary)))
    ends = np.r_[starts[1:], len(order)] - 1
    return {
        name: (couples.pair(int(order[start])), couples.pair(int(order[end])))
        for name, start, end in zip(coded.dictionary.to_pylist(), starts, ends, strict=True)
    }


def _row(
    group: _Group, axis: _Axis, extremes: tuple[Pair, Pair] | None, subject: Subject
) -> dict[str, Any]:
    mean = group.mean or 0.0
    bar = None
    if group.stderr is not None:
        bar = axis.place(mean - group.stderr), axis.place(mean + group.stderr)
    pairs = [] if extremes is None else subject.pair_cards(extremes)
    return {
        "label": group.label,
        "images": group.images,
        "mean": mean,
        "stderr": group.stderr,
        "at": axis.place(mean),
        "bar": bar,
        "pairs": pairs[:1] if group.pairs == 1 else pairs,
    }


def _lines(groups: list[_Group]) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Yield the table's lines."""
    for group in groups:
        mean, std, stderr = (
            "–" if value is None else f"{value:.4f}"
            for value in (group.mean, group.std, group.stderr)
        )
        yield group.label, f"{group.images:,}", f"{group.pairs:,}", mean, std, stderr
