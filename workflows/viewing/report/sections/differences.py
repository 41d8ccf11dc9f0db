"""The pairs of namesakes that differ most, and where."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np

from .....cache.errors import LpipstoreError
from .....pipeline.common.text import printable
from ..contract import Content, Subject
from ..numbers import colour_table, packed
from ..spatial import DifferenceMap, difference_maps
from ..spread import Pair, WithImages

_MOST = 12
_BRIGHTEST = 0.999  # quantile at the end of the scale: a single pixel must not darken all others


class Differences:
    """The farthest pairs, each with the map of their differences."""

    name = "differences"
    title = "Largest differences"
    kinds = ("paired",)

    def content(self, subject: Subject) -> Content | None:
        """Return pairs and maps; None where no pair has a distance."""
        if subject.empty:
            return None
        couples = subject.couples
        chosen = [couples.pair(n) for n in couples.order[::-1][:_MOST].tolist()]
        pairs = couples.with_images(chosen)
        maps, trouble = _maps(subject, pairs)
        made = [one for one in maps if isinstance(one, DifferenceMap)]
        signed = any(one.map.min() < 0 for one in made)
        largest = max((_largest(one) for one in made), default=0.0) or 1e-6
        return Content(
            "The pairs that changed most, the worst first, and where they differ: the brighter, "
            "the larger the difference that a person sees there.",
            {
                "cards": _cards(subject, chosen, maps),
                "trouble": trouble,
                "maps": bool(made),
                "low": -largest if signed else 0.0,
                "high": largest,
            },
            {
                "maps": [_packed(one, largest, signed=signed) for one in maps],
                "low": -largest if signed else 0.0,
                "high": largest,
                "colours": packed(colour_table("RdBu_r" if signed else "inferno").ravel()),
            }
            if made
            else None,
        )


def _maps(subject: Subject, pairs: WithImages) -> tuple[list[DifferenceMap | str], str]:
    """Return the maps; where there can be none, empty reasons and a word for the page."""
    try:
        with closing(subject.open_sources()) as sources:
            return difference_maps(subject.run, pairs, sources, subject.screen), ""
    except LpipstoreError as error:
        trouble = printable(str(error))
        subject.screen.warn(f"the report has no difference maps: {trouble}")
        return ["" for _ in pairs], trouble


def _largest(one: DifferenceMap) -> float:
    return float(np.quantile(np.abs(one.map), _BRIGHTEST))


def _cards(
    subject: Subject, pairs: Sequence[Pair], maps: Sequence[DifferenceMap | str]
) -> list[dict[str, Any]]:
    cards = subject.pair_cards(pairs)
    for card, one in zip(cards, maps, strict=True):
        card["mapped"] = isinstance(one, DifferenceMap)
        card["reason"] = printable(one) if isinstance(one, str) else ""
    return cards


def _packed(one: DifferenceMap | str, largest: float, *, signed: bool) -> dict[str, Any] | None:
    """Return a map as one byte a pixel, from the first to the last colour."""
    if isinstance(one, str):
        return None
    low = -largest if signed else 0.0
    levels = np.clip((one.map - low) / (largest - low), 0, 1) * 255
    height, width = one.map.shape
    return {
        "width": width,
        "height": height,
        "frame": [round(share, 5) for share in one.frame],
        "levels": packed(np.rint(levels).astype(np.uint8).ravel()),
    }
