"""Find an image by its name, and see the images nearest to it."""

import numpy as np

from .....pipeline.images.survey import ImageRecord
from ..contract import Content, Subject

_NEAREST = 10


class Nearest:
    """A search box, the chosen image and its nearest ten; distances are those of the matrix."""

    name = "nearest"
    title = "Nearest images"
    kinds = ("pairs", "compare")

    def content(self, subject: Subject) -> Content:
        """Return the image that is chosen at first.

        Of one collection it is the most typical, of two that with the closest match.
        """
        if subject.kind == "compare":
            across, names = subject.across, subject.side_names
            return _content(
                subject,
                across.first[int(across.nearest.order[0])],
                (len(across.first) + len(across.second), sum(map(len, across.shown))),
                [f"Its nearest in {name}" for name in names[::-1]],
                "Type part of a file name, or click any picture on this page: the ten images of "
                "the other collection appear that are nearest to it, the most alike first.",
            )
        pairs = subject.pairs
        typical = int(pairs.shown[np.argmin(pairs.statistics.mean[pairs.shown])])
        return _content(
            subject,
            pairs.images[typical],
            (len(pairs.images), len(pairs.shown)),
            ["Its nearest"],
            "Type part of a file name, or click any picture on this page: its ten nearest images "
            "appear, the most alike first.",
        )


def _content(
    subject: Subject,
    first: ImageRecord,
    counts: tuple[int, int],
    headings: list[str],
    hint: str,
) -> Content:
    """Return the section; `headings` are those for images of the rows and of the columns."""
    total, shown = counts
    return Content(
        hint,
        {
            "first": subject.name(first),
            "heading": headings[0],
            "total": total,
            "shown": shown,
        },
        {
            "first": subject.cast.number(first, large=True),
            "count": _NEAREST,
            "headings": headings,
        },
    )
