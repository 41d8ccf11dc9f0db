"""Pairs that give distances a face."""

from ..contract import LISTS, Content, Subject
from ..spread import EXTREMES, Pair

Row = tuple[str, list[Pair]]
_ALL = "All pairs, the closest first"
_ROWS = 3
_OF = {
    "pairs": "pairs of the collection",
    "compare": "pairs of an image of the first and one of the second collection",
    "across": "pairs that the run lists",
    "paired": "namesakes",
    "groups": "pairs within all groups",
}


class Extremes:
    """The closest pairs, those around the median and the farthest, side by side."""

    name = "extremes"
    title = "What a distance looks like"
    kinds = (*_OF, *LISTS)

    def content(self, subject: Subject) -> Content | None:
        """Return the three rows of pairs; None if there is no pair."""
        if subject.empty:
            return None
        rows = _of_list(subject) if subject.kind in LISTS else _of_all(subject)
        of = _OF.get(subject.kind, "listed pairs")
        hint = "What the numbers on this page mean to the eye."
        if len(rows) == _ROWS:
            hint = (
                f"The most alike {of}, average ones, and the least alike: what the numbers on this "
                "page mean to the eye."
            )
        return Content(hint, {"rows": [(name, subject.pair_cards(pairs)) for name, pairs in rows]})


def _of_all(subject: Subject) -> list[Row]:
    """Return the rows; of namesakes those that differ most stand elsewhere on the page."""
    seen = subject.distances.statistics
    if len(seen.closest) == seen.counts.sum():
        return [(_ALL, seen.closest)]
    rows = [("Closest", seen.closest), ("Around the median", seen.median)]
    if subject.kind != "paired":
        rows.append(("Farthest", seen.farthest))
    return _without_repeats(rows)


def _without_repeats(rows: list[Row]) -> list[Row]:
    """Leave out pairs that stand in another row, as of few images; the ends come first."""
    named, kept = set[tuple[int, int]](), dict[str, list[Pair]]()
    for name, pairs in (*rows[:1], *rows[:0:-1]):
        kept[name] = [pair for pair in pairs if (pair.left, pair.right) not in named]
        named.update((pair.left, pair.right) for pair in pairs)
    return [(name, kept[name]) for name, _ in rows if kept[name]]


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
