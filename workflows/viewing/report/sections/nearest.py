"""Find an image by its name, and see the images nearest to it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contract import Content, Subject
from ..numbers import packed, quantised

_NEAREST = 10
_LINKS = 100  # neighbours of an image that stand in the page
_HEADING = "Its nearest"
_NAMED = 60_000  # images whose names are searched: more than anybody looks for in a page


class Nearest:
    """A search box, the chosen image and the images nearest to it."""

    name = "nearest"
    title = "Nearest images"
    kinds = ("pairs", "compare", "nearest", "below")

    def content(self, subject: Subject) -> Content | None:
        """Return the image that is chosen at first, and what the search finds besides pictures."""
        if subject.empty:
            return None
        if subject.kind == "compare":
            return _across(subject)
        seen = subject.seen
        first = _first(subject)
        number = subject.cast.number(subject.usable[first], large=True)
        count, hint = _wording(subject)
        links = {} if subject.kind == "pairs" else {"links": _links(subject)}
        return Content(
            hint,
            {
                "first": subject.name(subject.usable[first]),
                "total": len(seen.images),
                "shown": len(seen.shown),
                "searched": min(len(seen.images), _NAMED),
                "close": subject.kind == "below",
                "heading": _HEADING,
            },
            {
                "first": number,
                "count": count,
                "headings": [_HEADING],
                **links,
                "others": _others(subject),
            },
        )


def _across(subject: Subject) -> Content:
    """Return the image with the closest match, and what its nearest in the other collection are."""
    across, names = subject.across, subject.side_names
    first = across.first[int(across.nearest.order[0])]
    shown = sum(map(len, across.shown))
    headings = [f"Its nearest in {name}" for name in names[::-1]]
    return Content(
        "Type part of a file name, or click any picture on this page: the ten images of the other "
        "collection appear that are nearest to it, the most alike first.",
        {
            "first": subject.name(first),
            "total": shown,  # the heat map says which are not
            "shown": shown,
            "searched": shown,
            "close": False,
            "heading": headings[0],
        },
        {
            "first": subject.cast.number(first, large=True),
            "count": _NEAREST,
            "headings": headings,
            "others": None,
        },
    )


def _wording(subject: Subject) -> tuple[int, str]:
    """Return how many images appear, and the hint."""
    find = "Type part of a file name, or click any picture on this page: "
    if subject.kind == "pairs":
        return _NEAREST, find + "its ten nearest images appear, the most alike first."
    manifest = subject.run.manifest
    if subject.kind == "below":
        below = f"{manifest['below']:g}"
        return _LINKS, find + f"all images closer to it than {below} appear, the most alike first."
    count = min(int(manifest["top_k"]), _LINKS, len(subject.usable) - 1)
    within = "" if manifest.get("below") is None else f" that are closer than {manifest['below']:g}"
    return count, find + f"its nearest {count}{within} appear, the most alike first."


def _first(subject: Subject) -> int:
    """Return the image that is chosen at first: the most typical one."""
    seen = subject.seen
    if subject.kind == "pairs":
        means = subject.pairs.statistics.mean
        return int(seen.shown[np.argmin(means[seen.shown])])
    times = subject.listed.times_named[seen.shown]
    return int(seen.shown[np.argmax(times)])


def _links(subject: Subject) -> dict[str, Any]:
    """Return for each image shown those listed for it that are shown, too: numbers of the page."""
    seen, cast = subject.listed, subject.cast
    numbers = cast.numbers(subject.usable[n] for n in seen.shown)
    number = np.full(len(subject.usable), -1, np.int64)
    number[seen.shown] = numbers
    counts, listed, others, lengths = [], [], [], []
    for image in seen.shown.tolist():
        ends, distances = seen.links(image)
        there = np.flatnonzero(number[ends] >= 0)[:_LINKS]
        counts.append(len(there))
        listed.append(min(len(ends), 65_535))
        others.append(number[ends[there]])
        lengths.append(distances[there])
    return {
        "images": packed(numbers),
        "counts": packed(counts),
        "listed": packed(listed),
        "others": packed(np.concatenate(others)),
        "distances": quantised(np.concatenate(lengths)),
    }


def _others(subject: Subject) -> dict[str, Any] | None:
    """Return names of images without a picture, each with the name of its nearest; None without.

    Names are indices: those below the number of images of the page are its images.
    """
    shown, count = subject.seen.shown, len(subject.usable)
    hidden = np.setdiff1d(np.arange(count), shown)[: max(0, _NAMED - len(shown))]
    if not len(hidden):
        return None
    nearest, lengths = _nearest_of(subject, hidden.tolist())
    cast = subject.cast
    on_page = {record.path: n for n, record in enumerate(cast.records)}
    place = {image: len(on_page) + n for n, image in enumerate(hidden.tolist())}
    every = [record.path for record in subject.usable]
    return {
        "from": len(on_page),
        "names": [subject.name(subject.usable[n]) for n in hidden],
        # An image is its own neighbour where none is listed
        "nearest": packed(
            [
                place[image]
                if other < 0
                else on_page.get(every[other], place.get(other, place[image]))
                for image, other in zip(hidden.tolist(), nearest, strict=True)
            ]
        ),
        "distances": quantised(lengths),
    }


def _nearest_of(
    subject: Subject, images: Sequence[int]
) -> tuple[list[int], NDArray[np.floating[Any]]]:
    """Return the nearest image of each, -1 for none, and its distance."""
    if subject.kind == "pairs":
        known = subject.pairs.statistics
        return known.neighbour[images].tolist(), known.nearest[images]
    nearest, lengths = subject.listed.nearest
    return nearest[images].tolist(), np.where(nearest[images] < 0, 0, lengths[images])
