"""How often which distance occurs."""

from ..contract import COUPLES, LISTS, Content, Subject
from .figures import quantiles_of

_PAIRS = {
    "score": "listed pairs",
    "across": "pairs that the run lists",
    "below": "pairs closer than the threshold",
    "nearest": "images and their neighbours",
}


class Histogram:
    """The histogram of all distances, with quantiles marked."""

    name = "histogram"
    title = "Distances"
    kinds = ("pairs", "compare", *COUPLES, *LISTS)

    def content(self, subject: Subject) -> Content | None:
        """Return counts and quantiles; a sentence where all are equal, None without distances."""
        if subject.empty:
            return None
        seen, quantiles = subject.distances.statistics, subject.run.summary["quantiles"]
        equal = seen.high - seen.low < 1e-9
        return Content(
            f"Each bar counts the {_PAIRS.get(subject.kind, 'pairs')} at that distance; half of "
            "all lie left of the median, nine of ten between 5 % and 95 %.",
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
