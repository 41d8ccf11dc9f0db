"""What a finished run says of itself: counts, distances in a few numbers, seconds.

`Summary.entries` is what ``summary.json`` and ``--json`` hold, `Summary.lines` what people see.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...pipeline.common.text import printable
from ...pipeline.matrix.summary import Figures
from ...pipeline.runs.files import IMAGES, SUMMARY
from .collection import Counts
from .screen import Lines


class Results:
    """What a summary says of the distances under one head: a frozen dataclass for each kind of run.

    Its fields are entries of the summary, in this order, but for those that are None; `Figures`
    are spelled out. What follows are those that all kinds have, or all but searches.

    Attributes
    ----------
    files
        The files of the run that have the distances.
    over
        What the standard error of the mean allows for.
    pairs
        Pairs that have a distance.
    precision_error
        That of fast distances, None for exact ones.
    """

    files: ClassVar[tuple[str, ...]]
    over: ClassVar[str] = "over images"
    pairs: int
    figures: Figures
    precision_error: float | None

    def lines(self) -> Lines:
        """Return the results as lines for people."""
        fast = self.precision_error is not None
        return [
            ("pairs", self.pairs_shown()),
            *self.besides(),
            *([("precision", self.fast_shown())] if fast else []),
            *self.distance_lines(),
        ]

    def pairs_shown(self) -> str:
        """Return the number of pairs as people read it."""
        return f"{self.pairs:,}"

    def besides(self) -> Lines:
        """Return lines on what stands besides the pairs."""
        return []

    def distance_lines(self) -> Lines:
        """Return lines on the distances."""
        stderr = self.figures.stderr
        spread = "" if stderr is None else f" ± {stderr:.4f} (standard error {self.over})"
        return [("mean distance", f"{self.figures.mean:.4f}{spread}"), show_spread(self.figures)]

    def headline(self) -> str:
        """Return the main figures in a few words."""
        fast = "" if self.precision_error is None else f", {self.fast_shown()}"
        return f"mean {self.mean_shown()}{fast}"

    def fast_shown(self) -> str:
        """Return how exact fast distances are."""
        return f"fast: within {self.precision_error:.1g} of exact (sampled)"

    def mean_shown(self) -> str:
        """Return the mean, and what it is of."""
        return f"{self.figures.mean:.4f} of {self.pairs:,} pairs"


@dataclass(frozen=True)
class Summary:
    """What a finished run says of itself; `title` and `out` are for people alone."""

    title: str
    out: Path
    counts: Counts
    results: Results
    seconds: Mapping[str, float]

    def entries(self) -> dict[str, Any]:
        """Return what ``summary.json`` and ``--json`` hold."""
        entries: dict[str, Any] = self.counts.entries()
        for name, value in vars(self.results).items():
            if isinstance(value, Figures):
                entries |= vars(value)
            elif value is not None:
                entries[name] = value
        return entries | {"seconds": dict(self.seconds)}

    def lines(self) -> Lines:
        """Return the summary as lines for people."""
        files = ", ".join((*self.results.files, IMAGES, SUMMARY))
        return [
            *self.counts.lines(),
            *self.results.lines(),
            ("seconds", show_stages(self.seconds)),
            ("results", f"{printable(str(self.out))} ({files})"),
        ]


def show_stages(seconds: Mapping[str, float], *stages: str) -> str:
    """Return seconds as people read them: the total and these stages, or all."""
    shown = stages or [name for name in seconds if name != "total"]
    return f"{seconds['total']:.2f} ({', '.join(f'{name} {seconds[name]:.2f}' for name in shown)})"


def show_spread(figures: Figures) -> tuple[str, str]:
    """Return standard deviation and quantiles as a line for people."""
    return "spread", f"std {figures.std:.4f}, {show_quantiles(figures)}"


def show_quantiles(figures: Figures) -> str:
    """Return smallest, median and largest distance as people read them."""
    quantiles = figures.quantiles
    assert quantiles is not None  # else there is no distance
    return (
        f"smallest {quantiles['0.0']:.4f}, median {quantiles['0.5']:.4f}, "
        f"largest {quantiles['1.0']:.4f}"
    )
