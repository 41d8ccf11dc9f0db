"""The collection as a map: images that look alike lie close together."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .....pipeline.analysis.scaling import classical_scaling
from ..contract import Content, Subject
from ..numbers import packed, quantised

_FEW = 4  # images: UMAP needs more


class Map:
    """Classical scaling of the distances, and UMAP where it is installed."""

    name = "map"
    title = "Map"
    kinds = ("pairs",)

    def content(self, subject: Subject) -> Content | None:
        """Return the points; None for fewer than three images, which are always on a line."""
        pairs = subject.pairs
        if len(pairs.images) < 3:
            return None
        points, share = classical_scaling(pairs.distances)
        maps = [_layout("Classical scaling", points)]
        if len(points) > _FEW and (points := _umap(pairs.distances)) is not None:
            maps.append(_layout("UMAP", points))
        return Content(
            "Pictures that look alike lie close together. A plane cannot hold all distances: "
            f"classical scaling shows {100 * share:.0f} % of their spread, so trust neighbours "
            "more than gaps.",
            {"layouts": [layout["name"] for layout in maps]},
            {
                "images": packed(subject.cast.numbers(pairs.images[n] for n in pairs.shown)),
                "layouts": maps,
            },
        )


def _layout(name: str, points: NDArray[np.floating]) -> dict[str, Any]:
    return {"name": name, "x": quantised(points[:, 0]), "y": quantised(points[:, 1])}


def _umap(distances: NDArray[np.float32]) -> NDArray[np.floating] | None:
    """Return a UMAP of the images, in which neighbours are kept; None where it is not installed."""
    try:
        from umap import UMAP
    except ImportError:
        return None
    neighbours = min(15, len(distances) - 1)
    reducer = UMAP(n_neighbors=neighbours, metric="precomputed", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what precomputed distances and a seed rule out
        points: NDArray[np.floating] = reducer.fit_transform(distances)
    return points
