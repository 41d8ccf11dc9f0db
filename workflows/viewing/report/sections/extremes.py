"""Pairs that give distances a face."""

from ..contract import LISTS, Content, Subject


class Extremes:
    """The closest pairs, those around the median and the farthest, side by side."""

    name = "extremes"
    title = "What a distance looks like"
    kinds = ("pairs", *LISTS)

    def content(self, subject: Subject) -> Content | None:
        """Return the three rows of pairs; None if there is no pair."""
        if subject.empty:
            return None
        seen = subject.seen.statistics
        rows = [("Closest", seen.closest), ("Around the median", seen.median)]
        rows.append(("Farthest", seen.farthest))
        if len(seen.closest) == _distinct(subject):
            rows = [("All pairs, the closest first", seen.closest)]
        of = "listed pairs" if subject.kind in LISTS else "pairs of the collection"
        return Content(
            f"The most alike {of}, average ones, and the least alike: what the numbers on this "
            "page mean to the eye.",
            {"rows": [(name, subject.pair_cards(pairs)) for name, pairs in rows]},
        )


def _distinct(subject: Subject) -> int:
    """Return the number of different pairs that have a distance."""
    if subject.kind in LISTS:
        return len(subject.listed.distinct)
    return int(subject.run.summary["pairs"])
