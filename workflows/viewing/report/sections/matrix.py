"""The matrix of distances as a heat map in clustered order."""

from ..contract import Content, Subject
from ..numbers import colour_table, matrix_png, packed, quantised

_PRINTED = 480  # pixels of the heat map for readers without scripts


class Matrix:
    """The heat map, and the distances that it and other sections read."""

    name = "matrix"
    title = "All against all"
    kinds = ("pairs",)

    def content(self, subject: Subject) -> Content | None:
        """Return distances of the images shown and their clustered order; None without any."""
        if subject.empty:
            return None
        pairs = subject.pairs
        numbers = subject.cast.numbers(pairs.images[n] for n in pairs.shown)
        low, high = pairs.limits
        packing = quantised(pairs.condensed)
        return Content(
            "Each cell is a pair: the darker, the more alike. Images stand in clustered order, so "
            "that dark blocks along the diagonal are families of similar pictures.",
            {
                "total": len(pairs.images),
                "shown": len(pairs.shown),
                "low": low,
                "high": high,
                "precision": packing["step"] / 2,
                "printed": matrix_png(pairs.distances, pairs.order, pairs.limits, _PRINTED),
            },
            {
                "images": packed(numbers),
                "order": packed(pairs.order),
                "distances": packing,
                "low": low,
                "high": high,
                "colours": packed(colour_table().ravel()),
            },
        )
