"""Pairs that give distances a face."""

from collections.abc import Sequence

from ..allpairs import Pair
from ..contract import Content, Subject


class Extremes:
    """The closest pairs, those around the median and the farthest, side by side."""

    name = "extremes"
    title = "What a distance looks like"
    kinds = ("pairs",)

    def content(self, subject: Subject) -> Content:
        """Return the three rows of pairs."""
        seen = subject.pairs.statistics
        rows = [("Closest", seen.closest), ("Around the median", seen.median)]
        rows.append(("Farthest", seen.farthest))
        if len(seen.closest) == subject.run.summary["pairs"]:
            rows = [("All pairs, the closest first", seen.closest)]
        return Content(
            "The most alike pairs of the collection, average ones, and the least alike: what the "
            "numbers on this page mean to the eye.",
            {"rows": [(name, _cards(pairs, subject)) for name, pairs in rows]},
        )


def _cards(pairs: Sequence[Pair], subject: Subject) -> list[dict[str, object]]:
    """Return the pairs as the template shows them."""
    cards: list[dict[str, object]] = []
    for left, right, distance in subject.pairs.numbered(pairs):
        numbers = subject.cast.numbers((left, right), large=True)
        names = subject.name(left), subject.name(right)
        cards.append({"images": [*zip(numbers, names, strict=True)], "distance": distance})
    return cards
