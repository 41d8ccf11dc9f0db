"""Figures of a benchmark, with their targets, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A line of the table.

    `ratio` is against what `against` names; `target` is a bound of the ratio, or of the value where
    there is none, such as ``>= 0.8``.
    """

    part: str
    case: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    target: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if not self.target:
            return None
        sign, bound = self.target.split()
        reached = self.value if self.ratio is None else self.ratio
        return bool(reached >= float(bound) if sign == ">=" else reached <= float(bound))

    def cells(self) -> list[str]:
        """Return the cells of the table."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} × {self.against}"
        met = {None: "", True: "met", False: "MISSED"}[self.met]
        return [self.part, self.case, f"{self.value:.4g} {self.unit}", ratio, self.target, met]


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a table in Markdown."""
    head = ["part", "case", "value", "ratio", "target", ""]
    lines = [head, ["---"] * len(head), *(figure.cells() for figure in figures)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
