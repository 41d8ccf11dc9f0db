"""How often which distance occurs."""

from ..contract import Content, Subject
from .figures import quantiles_of


class Histogram:
    """The histogram of all distances, with quantiles marked."""

    name = "histogram"
    title = "Distances"
    kinds = ("pairs", "compare", "across", "paired", "groups")

    def content(self, subject: Subject) -> Content | None:
        """Return counts and quantiles; one bar where all are equal; None where there is no pair."""
        if subject.seen is None:
            return None
        seen, quantiles = subject.seen.statistics, subject.run.summary["quantiles"]
        equal = seen.high - seen.low < 1e-9
        what = " that the run lists" if subject.kind == "across" else ""
        return Content(
            f"Each bar counts the pairs{what} at that distance; half of all pairs lie left of the "
            "median, nine of ten between 5 % and 95 %.",
            {"quantiles": quantiles_of(subject.run.summary), "equal": equal, "at": seen.low},
            None
            if equal
            else {
                "counts": seen.counts.tolist(),
                "low": seen.low,
                "high": seen.high,
                "marks": [
                    [name, quantiles[level]]
                    for level, name in (("0.05", "5 %"), ("0.5", "median"), ("0.95", "95 %"))
                ],
            },
        )
