"""A run as a notebook shows it: its figures, the closest pairs and a small heat map."""

from contextlib import closing
from typing import Any

import numpy as np

from ....pipeline.analysis.hierarchy import leaf_order
from ....pipeline.runs.run import FinishedRun
from ...session.logged import LoggedScreen
from .allpairs import distances_of
from .build import environment
from .contract import Subject
from .numbers import matrix_png
from .sections.figures import tiles_of
from .spread import spread_out
from .thumbnails import pictures, webp

_IMAGES = 400  # of the heat map
_SIDE = 320  # pixels of the heat map
_PAIRS, _THUMBNAIL = 3, 96


def notebook_html(run: FinishedRun) -> str:
    """Return a fragment of HTML without scripts; runs without a matrix have their figures alone.

    Raises
    ------
    LpipstoreError
        The run is damaged.
    """
    with LoggedScreen() as screen:
        subject = Subject(run, screen)
        context: dict[str, Any] = {
            "tiles": tiles_of(run.summary),
            "untrained": run.summary.get("trained") is False,
            "said": repr(run)[1:-1],
            "pairs": [],
            "heat": None,
        }
        if subject.kind == "pairs" and not subject.empty:
            context |= {"pairs": _closest(subject), "heat": _heat(subject)}
        return environment().get_template("notebook.html.j2").render(context)


def _closest(subject: Subject) -> list[dict[str, Any]]:
    """Return the closest pairs, their pictures as data URIs; None for one that is gone."""
    pairs = subject.pairs.statistics.closest[:_PAIRS]
    ends = [(subject.usable[pair.left], subject.usable[pair.right]) for pair in pairs]
    records = [record for both in ends for record in both]
    icc = "convert" if subject.run.manifest.get("colours") else "ignore"
    with closing(subject.open_sources()) as sources:
        made = [*pictures(records, _THUMBNAIL, sources, icc, subject.screen)]
    uris = [None if isinstance(picture, str) else webp(picture) for picture in made]
    return [
        {
            "distance": pair.distance,
            "images": [(subject.name(left), uris[2 * n]), (subject.name(right), uris[2 * n + 1])],
        }
        for n, (pair, (left, right)) in enumerate(zip(pairs, ends, strict=True))
    ]


def _heat(subject: Subject) -> str:
    pairs = subject.pairs
    matrix = distances_of(subject.run, spread_out(len(pairs.images), _IMAGES))
    order = leaf_order(matrix[np.triu_indices(len(matrix), 1)])
    return matrix_png(matrix[np.ix_(order, order)], pairs.limits, _SIDE)
