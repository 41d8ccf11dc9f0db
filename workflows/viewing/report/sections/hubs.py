"""Images that are neighbours of many, and images that stand alone."""

from typing import Any

import numpy as np

from ..contract import Content, Subject


class Hubs:
    """Of a search for nearest neighbours: hubs and loners."""

    name = "hubs"
    title = "Hubs and loners"
    kinds = ("nearest",)

    def content(self, subject: Subject) -> Content | None:
        """Return a dozen of both; None if no image has a neighbour."""
        if subject.empty:
            return None
        seen = subject.listed
        times, first = seen.times_named, seen.nearest[1]
        return Content(
            "A hub is among the nearest of many other images, often a plain or blurred one; a "
            "loner is far even from the image nearest to it.",
            {
                "hubs": [_card(subject, n, f"{times[n]:,} images") for n in seen.hubs],
                "loners": [_card(subject, n, f"{first[n]:.4f}") for n in seen.loners],
                "alone": int(np.isinf(first).sum()),
                "typical": f"{times.mean():.3g}",
            },
        )


def _card(subject: Subject, image: np.int64, value: str) -> dict[str, Any]:
    record = subject.usable[image]
    number = subject.cast.number(record, large=True)
    return {"image": number, "name": subject.name(record), "value": value}
