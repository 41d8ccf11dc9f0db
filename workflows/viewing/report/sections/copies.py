"""For each image of one collection its nearest in another, where copies show."""

import numpy as np
from numpy.typing import NDArray

from .....pipeline.analysis.threshold import suggest_threshold
from ..contract import Content, Subject
from ..numbers import packed
from ..spread import WithImages

_PAGE = 24
_PLAIN = 100  # pairs of the table for readers without scripts
_MOST = 400  # pairs of a list
_ENOUGH = 20  # images: of fewer nothing is said of how their distances lie
_FAR_CLOSER = 0.5  # of the distance of the others


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
            f"Each image of {first} beside the image of {second} that is nearest to it. If a model "
            f"that was trained on {second} made {first}, images that it copied stand first, far "
            "closer than the rest.",
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
                "distances": [round(distance, 9) for _, _, distance in found],
                "page": _PAGE,
            },
        )


def _of_matrix(subject: Subject) -> tuple[WithImages, int]:
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


def _of_list(subject: Subject) -> tuple[WithImages, int]:
    """Return the same of those that the run lists; others have nothing as close as it asked."""
    if subject.empty:
        return [], 0
    closest = subject.couples.nearest()
    pairs = [subject.couples.pair(n) for n in closest[:_MOST].tolist()]
    return subject.couples.with_images(pairs), len(closest)


def _finding(subject: Subject) -> str:
    """Return what the distances of nearest images say, in a sentence or two."""
    if subject.kind == "compare":
        return say_of_copies(subject.across.nearest.distance)
    closest, first = subject.couples.nearest(), len(subject.sides[0])
    if len(closest) == first:
        return say_of_copies(subject.couples.distances[closest])
    return f"{len(closest):,} of {first:,} images have a match that the run lists."


def say_of_copies(distances: NDArray[np.float32]) -> str:
    """Return what the distance of each image to its nearest says, in a few sentences.

    Images count as candidates for copies if `suggest_threshold` sees two heaps of distances and the
    closer one is at less than half the distance of the other.

    Examples
    --------
    >>> say_of_copies(np.array([0.0, 0.4], np.float32))
    '1 image is identical to one of the other side. The closest match is at 0.0000.'
    """
    ranked = np.sort(distances)
    same = int((ranked == 0).sum())
    said = [f"{_images(same)} identical to one of the other side."] if same else []
    suggestion = suggest_threshold(distances)
    close = ranked[ranked < suggestion.below]
    others = ranked[len(close) :]
    apart = suggestion.clear and np.median(close) < _FAR_CLOSER * np.median(others)
    if len(ranked) >= _ENOUGH and apart:
        said.append(
            f"{_images(len(close))} far closer to a match than the others are, below "
            f"{suggestion.below:g}: look at these first."
        )
    elif len(ranked) >= _ENOUGH:
        besides = "Besides, no" if same else "No"
        said.append(f"{besides} match is far closer than the others, as copies would be.")
    said.append(f"The closest match is at {ranked[0]:.4f}.")
    if len(ranked) >= _ENOUGH:
        said.append(f"Half of all images have one within {np.median(ranked):.4f}.")
    return " ".join(said)


def _images(count: int) -> str:
    return "1 image is" if count == 1 else f"{count:,} images are"
