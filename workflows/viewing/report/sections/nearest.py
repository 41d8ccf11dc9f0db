"""Find an image by its name, and see the images nearest to it."""

import numpy as np

from ..contract import Content, Subject

_NEAREST = 10


class Nearest:
    """A search box, the chosen image and its nearest ten; distances are those of the matrix."""

    name = "nearest"
    title = "Nearest images"
    kinds = ("pairs",)

    def content(self, subject: Subject) -> Content:
        """Return the image that is chosen at first: the most typical one."""
        pairs = subject.pairs
        typical = int(pairs.shown[np.argmin(pairs.statistics.mean[pairs.shown])])
        number = subject.cast.number(pairs.images[typical], large=True)
        first = subject.name(pairs.images[typical])
        return Content(
            "Type part of a file name, or click any picture on this page: its ten nearest images "
            "appear, the most alike first.",
            {"first": first, "total": len(pairs.images), "shown": len(pairs.shown)},
            {"first": number, "count": _NEAREST},
        )
