"""For each image of one collection its nearest in another, where copies show."""

from .....pipeline.analysis.threshold import suggest_threshold
from ..contract import Content, Subject
from ..numbers import packed
from ..spread import Numbered

_PAGE = 24
_PLAIN = 100  # pairs of the table for readers without scripts
_MOST = 400  # pairs of a list


class Copies:
    """Each image of the first collection beside its nearest of the second, closest first."""

    name = "copies"
    title = "Copies"
    kinds = ("compare", "across")

    def content(self, subject: Subject) -> Content | None:
        """Return the pairs, and what the distances say of copies; None if nothing is listed."""
        found, total = _of_matrix(subject) if subject.kind == "compare" else _of_list(subject)
        if not found:
            return None
        first, second = subject.side_names
        lines = [(subject.name(a), subject.name(b), distance) for a, b, distance in found[:_PLAIN]]
        numbers = [subject.cast.numbers(pair[:2], large=n < _PAGE) for n, pair in enumerate(found)]
        return Content(
            f"Each image of {first} beside the image of {second} that is nearest to it. Where a "
            f"model was trained on {second} and made {first}, copied training images stand first, "
            "far closer than the rest.",
            {
                "first": first,
                "second": second,
                "found": _finding(subject),
                "lines": lines,
                "shown": len(found),
                "total": total,
                "paged": len(found) > _PAGE,
            },
            {
                "left": packed([left for left, _ in numbers]),
                "right": packed([right for _, right in numbers]),
                "distances": [round(distance, 6) for _, _, distance in found],
                "page": _PAGE,
            },
        )


def _of_matrix(subject: Subject) -> tuple[Numbered, int]:
    """Return the nearest of all images of the first side, or of the closest of very many."""
    across = subject.across
    nearest = across.nearest
    found = [
        (
            across.first[row],
            across.second[int(nearest.column[row])],
            float(nearest.distance[row]),
        )
        for row in across.listed.tolist()
    ]
    return found, len(across.first)


def _of_list(subject: Subject) -> tuple[Numbered, int]:
    """Return the same of those that the run lists; others have nothing as close as it asked."""
    if subject.seen is None:
        return [], 0
    closest = subject.listed.nearest()
    pairs = [subject.listed.pair(n) for n in closest[:_MOST].tolist()]
    return subject.listed.numbered(pairs), len(closest)


def _finding(subject: Subject) -> str:
    """Return what the distances of nearest images say, in a sentence or two."""
    if subject.kind == "across":
        listed, first = len(subject.listed.nearest()), len(subject.sides[0])
        return f"{listed:,} of {first:,} images have a match that the run lists."
    distances = subject.across.nearest.distance
    ranked = sorted(distances.tolist())
    usual = (
        f"The closest match is at {ranked[0]:.4f}; half of all images have one within "
        f"{ranked[len(ranked) // 2]:.4f}."
    )
    same = int((distances == 0).sum())
    exact = f" {_images(same)} identical to one of the other side." if same else ""
    suggestion = suggest_threshold(distances)
    if suggestion.clear:
        close = int((distances < suggestion.below).sum())
        return (
            f"{_images(close)} far closer to a match than the others are, below "
            f"{suggestion.below:g}: look at these first.{exact} {usual}"
        )
    return f"No matches stand apart from the others as copies would.{exact} {usual}"


def _images(count: int) -> str:
    return "1 image is" if count == 1 else f"{count:,} images are"
