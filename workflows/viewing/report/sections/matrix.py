"""The matrix of distances as a heat map, in an order in which images that are alike stand close."""

import numpy as np

from ..contract import Content, Subject
from ..numbers import colour_table, matrix_png, packed, quantised

_PRINTED = 480  # pixels of the heat map for readers without scripts
_TALL = 3  # rows for each column: more make a narrow heat map, as do so few of either


class Matrix:
    """The heat map, and the distances that it and other sections read."""

    name = "matrix"
    title = "All against all"
    kinds = ("pairs", "compare")

    def content(self, subject: Subject) -> Content | None:
        """Return distances of the images shown and the orders of rows and columns."""
        if subject.empty:
            return None
        return _across(subject) if subject.kind == "compare" else _within(subject)


def _within(subject: Subject) -> Content:
    pairs, order = subject.pairs, subject.pairs.order
    packing, (low, high) = quantised(pairs.condensed), pairs.limits
    numbers = subject.cast.numbers(pairs.images[n] for n in pairs.shown)
    return Content(
        "Each cell is a pair: the darker, the more alike. Images stand in clustered order, so "
        "that dark blocks along the diagonal are families of similar pictures.",
        {
            "total": len(pairs.images),
            "shown": len(pairs.shown),
            "sides": [],
            "tall": False,
            "low": low,
            "high": high,
            "precision": packing["step"] / 2,
            "printed": matrix_png(pairs.distances[np.ix_(order, order)], pairs.limits, _PRINTED),
        },
        {
            "images": packed(numbers),
            "order": packed(order),
            "distances": packing,
            "low": low,
            "high": high,
            "colours": packed(colour_table().ravel()),
        },
    )


def _across(subject: Subject) -> Content:
    across, names = subject.across, subject.side_names
    (rows, columns), (down, right) = across.shown, across.orders
    packing, (low, high) = quantised(across.distances.ravel()), across.limits
    return Content(
        "Each cell is a pair: the darker, the more alike. Rows stand beside rows that are about as "
        "far from each column, and columns likewise: dark blocks are families of pictures that "
        "both collections have.",
        {
            "total": len(across.first) + len(across.second),
            "shown": len(rows) + len(columns),
            "sides": [
                ("Rows", names[0], len(rows), len(across.first)),
                ("Columns", names[1], len(columns), len(across.second)),
            ],
            "tall": len(rows) > _TALL * len(columns) or max(len(rows), len(columns)) <= _TALL,
            "low": low,
            "high": high,
            "precision": packing["step"] / 2,
            "printed": matrix_png(across.distances[np.ix_(down, right)], across.limits, _PRINTED),
        },
        {
            "images": packed(subject.cast.numbers(across.first[n] for n in rows)),
            "across": packed(subject.cast.numbers(across.second[n] for n in columns)),
            "order": packed(down),
            "orderAcross": packed(right),
            "distances": packing,
            "low": low,
            "high": high,
            "colours": packed(colour_table().ravel()),
        },
    )
