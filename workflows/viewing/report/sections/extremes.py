"""Pairs that give distances a face."""

from collections.abc import Sequence

from .....pipeline.images.survey import ImageRecord
from ..contract import Content, Subject
from ..names import shared_end
from ..spread import Pair, Seen

_HINTS = {
    "pairs": "The most alike pairs of the collection, average ones, and the least alike: what the "
    "numbers on this page mean to the eye.",
    "compare": "The most alike pairs of an image of the first and one of the second collection, "
    "average ones, and the least alike: what the numbers on this page mean to the eye.",
    "across": "The most alike of the pairs that the run lists, average ones, and the least alike.",
    "paired": "The pairs that changed least, and average ones: what the numbers on this page mean "
    "to the eye. Those that changed most are above.",
    "groups": "The most alike pairs within all groups, average ones, and the least alike: what the "
    "numbers on this page mean to the eye.",
}


class Extremes:
    """The closest pairs, those around the median and the farthest, side by side."""

    name = "extremes"
    title = "What a distance looks like"
    kinds = tuple(_HINTS)

    def content(self, subject: Subject) -> Content | None:
        """Return the three rows of pairs; None where there is no pair."""
        found = subject.seen
        if found is None:
            return None
        seen = found.statistics
        rows = [("Closest", seen.closest), ("Around the median", seen.median)]
        if subject.kind != "paired":
            rows.append(("Farthest", seen.farthest))
        if len(seen.closest) == seen.counts.sum():
            rows = [("All pairs, the closest first", seen.closest)]
        rows = _without_repeats(rows)
        return Content(
            _HINTS[subject.kind],
            {"rows": [(name, cards_of(pairs, found, subject)) for name, pairs in rows]},
        )


def _without_repeats(rows: list[tuple[str, list[Pair]]]) -> list[tuple[str, list[Pair]]]:
    """Leave out pairs that stand in another row, as of few images; the ends come first."""
    named, kept = set[tuple[int, int]](), dict[str, list[Pair]]()
    for name, pairs in (*rows[:1], *rows[:0:-1]):
        kept[name] = [pair for pair in pairs if (pair.left, pair.right) not in named]
        named.update((pair.left, pair.right) for pair in pairs)
    return [(name, kept[name]) for name, _ in rows if kept[name]]


def cards_of(pairs: Sequence[Pair], seen: Seen, subject: Subject) -> list[dict[str, object]]:
    """Return pairs as the macro ``pair`` shows them."""
    return [card_of(pair, subject) for pair in seen.numbered(pairs)]


def card_of(pair: tuple[ImageRecord, ImageRecord, float], subject: Subject) -> dict[str, object]:
    """Return a pair with its names; below namesakes stands the name that they share."""
    left, right, distance = pair
    numbers = subject.cast.numbers((left, right), large=True)
    names = subject.name(left), subject.name(right)
    shared = shared_end(*names) if subject.kind == "paired" else ""
    return {
        "images": [*zip(numbers, names, strict=True)],
        "captions": [shared] if shared else [*names],
        "distance": distance,
    }
