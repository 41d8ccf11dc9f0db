"""Pairs that give distances a face."""

from ..contract import LISTS, Content, Subject
from ..spread import EXTREMES, Pair

Row = tuple[str, list[Pair]]
_ALL = "All pairs, the closest first"
_ROWS = 3


class Extremes:
    """The closest pairs, those around the median and the farthest, side by side."""

    name = "extremes"
    title = "What a distance looks like"
    kinds = ("pairs", *LISTS)

    def content(self, subject: Subject) -> Content | None:
        """Return the three rows of pairs; None if there is no pair."""
        if subject.empty:
            return None
        if subject.kind in LISTS:
            rows, of = _of_list(subject), "listed pairs"
        else:
            rows, of = _of_all(subject), "pairs of the collection"
        return Content(
            f"The most alike {of}, average ones, and the least alike: what the numbers on this "
            "page mean to the eye."
            if len(rows) == _ROWS
            else "What the numbers on this page mean to the eye.",
            {"rows": [(name, subject.pair_cards(pairs)) for name, pairs in rows]},
        )


def _of_all(subject: Subject) -> list[Row]:
    seen = subject.seen.statistics
    if len(seen.closest) == int(subject.run.summary["pairs"]):
        return [(_ALL, seen.closest)]
    return [
        ("Closest", seen.closest),
        ("Around the median", seen.median),
        ("Farthest", seen.farthest),
    ]


def _of_list(subject: Subject) -> list[Row]:
    """Return rows of pairs: what a search found at its threshold, and what no other section has."""
    listed = subject.listed
    if len(listed.distinct) <= _ROWS * EXTREMES:
        return [(_ALL, listed.in_order())]
    seen = listed.statistics
    rows = [("Closest", seen.closest), ("Around the median", seen.median)]
    if subject.kind == "below":
        return [rows[0], ("Just below the threshold", seen.farthest)]
    return [*rows, ("Farthest", seen.farthest)] if subject.kind == "nearest" else rows
