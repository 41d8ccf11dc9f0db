"""The pairs of a list that are least alike, with what the list says of them."""

from typing import Any

import numpy as np
import pyarrow as pa

from .....pipeline.common.text import printable
from ..contract import Content, Subject
from ..spread import numbered, smallest

_SHOWN = 24
_COLUMNS = 4  # of the list's own that are shown
_LONG = 60  # characters of an entry


class Worst:
    """The two dozen listed pairs with the largest distances."""

    name = "worst"
    title = "Least alike"
    kinds = ("score",)

    def content(self, subject: Subject) -> Content | None:
        """Return the pairs; None if there is none, or no more than are shown anyway."""
        if subject.empty or len(subject.listed.distinct) <= _SHOWN // 4:
            return None
        seen = subject.listed
        chosen = smallest(-seen.lengths, _SHOWN)
        order = np.lexsort((seen.lines[chosen], -seen.lengths[chosen]))
        chosen = chosen[order]
        cards = subject.pair_cards(numbered(seen.left, seen.right, seen.lengths, chosen.tolist()))
        extra = _own_columns(subject, seen.lines[chosen])
        for card, line, entries in zip(cards, seen.lines[chosen].tolist(), extra, strict=True):
            card |= {"line": line + 1, "entries": entries}
        failed = subject.run.summary.get("failed_pairs", 0)
        return Content(
            "The pairs of the list with the largest distances: where one image is meant to be the "
            "other's copy, these are the ones to look at.",
            {"cards": cards, "failed": failed, "total": len(seen.lines)},
        )


def _own_columns(subject: Subject, lines: np.ndarray[Any, Any]) -> list[list[tuple[str, str]]]:
    """Return (column, entry) of the list's own columns for each of some lines."""
    table = subject.run.pairs
    own = 5 + ("statistics_row" in table.column_names)  # after i, j, two paths, the distance
    chosen = table.select(range(own, min(own + _COLUMNS, table.num_columns))).take(pa.array(lines))
    rows = chosen.to_pylist()
    return [
        [(printable(name), printable(str(value))[:_LONG]) for name, value in row.items()]
        for row in rows
    ]
