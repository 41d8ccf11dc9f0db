"""Clusters of a collection: hierarchical clustering of its distances, each with its medoid."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...cache.errors import UsageError, setting
from ...pipeline.analysis.hierarchy import METHODS, cluster_tree, cut, medoids
from ...pipeline.analysis.silhouette import choose_count
from ...pipeline.common.text import printable
from ...pipeline.runs.run import FinishedRun
from ..session.collection import check_choice
from ..session.screen import Lines, Screen
from ..session.settings import show_bytes
from .outputs import check_outputs, write_result
from .whole import WholeRun, need_memory, whole_run

_BYTES = 12  # for each pair of a square: condensed in float32 and float64, and SciPy's copy
_LARGE = 1_000_000_000
_SHOWN = 20  # clusters in the lines for people
_SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "cluster": pa.int64(),
        "medoid": pa.bool_(),
        "distance": pa.float32(),
    }
)


@dataclass(frozen=True)
class Cluster:
    """Images that belong together.

    Attributes
    ----------
    paths
        The images, from the medoid outwards: the one with the smallest mean distance to the others.
    mean
        Mean distance of the others to the medoid; 0 of an image by itself.
    """

    paths: list[str]
    mean: float

    @property
    def medoid(self) -> str:
        """The image that stands for the cluster."""
        return self.paths[0]


@dataclass(frozen=True, eq=False)
class Clusters:
    """The clusters of a collection of `images` usable images, the largest first.

    Attributes
    ----------
    paths
        All images, in the order of the run.
    labels
        int64 [images]: the cluster of each.
    distances
        float32 [images]: the LPIPS distance of each to the medoid of its cluster.
    medoids
        int64 [clusters]: the medoid of each cluster.
    linkage
        "average", "complete" or "single".
    reason
        Why there are so many.
    silhouette
        The mean silhouette, from -1 to 1, if the number was chosen by it.
    failed
        Images that could not be used.
    """

    title: ClassVar[str] = "Clusters"
    images: int
    linkage: str
    reason: str
    silhouette: float | None
    clusters: list[Cluster]
    failed: int
    paths: list[str] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    distances: NDArray[np.float32] = field(repr=False)
    medoids: NDArray[np.int64] = field(repr=False)

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "images": self.images,
            "failed": self.failed,
            "linkage": self.linkage,
            "count": len(self.clusters),
            "reason": self.reason,
            "silhouette": self.silhouette,
            "clusters": [
                {
                    "cluster": number,
                    "medoid": printable(cluster.medoid),
                    "size": len(cluster.paths),
                    "mean": cluster.mean,
                    "paths": [printable(path) for path in cluster.paths],
                }
                for number, cluster in enumerate(self.clusters)
            ],
        }

    def lines(self) -> Lines:
        """Return the largest clusters as lines for people."""
        shown = [
            (
                f"cluster {number}",
                f"{len(cluster.paths):,} images around {printable(cluster.medoid)}, mean distance "
                f"to it {cluster.mean:.3f}"
                if len(cluster.paths) > 1
                else f"1 image: {printable(cluster.medoid)}",
            )
            for number, cluster in enumerate(self.clusters[:_SHOWN])
        ]
        more = len(self.clusters) - len(shown)
        rest = [("", f"and {more:,} more clusters: {setting('out')} writes all")] if more else []
        return [
            ("images", f"{self.images:,}"),
            ("failed", f"{self.failed:,}"),
            ("clusters", f"{len(self.clusters):,} ({self.linkage} linkage): {self.reason}"),
            *shown,
            *rest,
        ]

    def table(self) -> pa.Table:
        """Return path, cluster, medoid and distance to it of each image, in the run's order."""
        medoid = np.isin(np.arange(self.images), self.medoids)
        paths = [printable(path) for path in self.paths]
        columns = [paths, self.labels, medoid, self.distances]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)]
        return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def find_clusters(
    run: FinishedRun,
    screen: Screen,
    *,
    count: int | None = None,
    below: float | None = None,
    linkage: str = "average",
    out: Path | None = None,
    memory: str = "4GB",
) -> Clusters:
    """Cluster the images of a run by their distances.

    Takes 12 n² bytes of memory: 0.3 GB for 5,000 images.

    Parameters
    ----------
    run
        A run of all pairs.
    count
        Number of clusters; of more than there are images, each is one.
    below
        Instead of a number: join clusters as long as they are closer than this, by `linkage`.
        Without either, the cut of 2 to 20 clusters with the largest mean silhouette is taken.
    linkage
        How far two clusters are apart: the "average", largest ("complete") or smallest ("single")
        distance of their images.
    out
        A .csv, .json or .parquet file to write the cluster of each image to.
    memory
        What may be taken.

    Raises
    ------
    UsageError
        A choice is wrong, the run has other distances, or too little memory is granted.
    LpipstoreError
        The run is damaged, or the result cannot be written.
    """
    check_choice("linkage", linkage, METHODS)
    if count is not None and below is not None:
        raise UsageError(f"{setting('count')} and {setting('below')} exclude each other")
    if count is not None and count < 1:
        raise UsageError(f"{setting('count', count)} must be at least 1")
    if below is not None and not below > 0:
        raise UsageError(f"{setting('below', below)} must be more than 0")
    check_outputs(out)
    whole = whole_run(run, "clusters")
    need = _BYTES * len(whole.images) ** 2
    need_memory(need, memory, f"clustering {len(whole.images):,} images")
    if need >= _LARGE:
        screen.warn(f"clustering {len(whole.images):,} images takes {show_bytes(need)} of memory")
    found = _clusters(whole, screen, count, below, linkage)
    if out is not None:
        write_result(found, out)
    return found


def _clusters(
    whole: WholeRun, screen: Screen, count: int | None, below: float | None, linkage: str
) -> Clusters:
    paths = [image.path for image in whole.images]
    images = len(paths)
    tree = cluster_tree(whole.run.condensed(), linkage)
    matrix = whole.matrix()
    choice = _choice(matrix, tree, screen, count, below)
    labels = choice.labels[:images]  # without images, none of the one that a tree has at least
    centres = medoids(matrix, labels)
    distances = matrix[centres[labels], np.arange(images)] if images else matrix.ravel()
    clusters = []
    for label, centre in enumerate(centres.tolist()):
        others = np.flatnonzero((labels == label) & (np.arange(images) != centre))
        others = others[np.argsort(distances[others], kind="stable")]
        mean = float(distances[others].mean(dtype=np.float64)) if len(others) else 0.0
        clusters.append(Cluster([paths[centre], *(paths[n] for n in others)], mean))
    return Clusters(
        images,
        linkage,
        choice.reason,
        choice.silhouette,
        clusters,
        whole.failed,
        paths,
        labels,
        distances,
        centres,
    )


@dataclass(frozen=True)
class _Cut:
    """The cluster of each image, and why it is that one."""

    labels: NDArray[np.int64]
    reason: str
    silhouette: float | None = None


def _choice(
    matrix: NDArray[np.float32],
    tree: NDArray[np.float64],
    screen: Screen,
    count: int | None,
    below: float | None,
) -> _Cut:
    """Cut the tree as asked for, or where the silhouette is largest."""
    if below is not None:
        return _Cut(cut(tree, below=below), f"joined as long as closer than {below:g}")
    if count is not None:
        reason = "as many as asked for"
        if count > len(matrix):
            reason = f"{count:,} were asked for, and there are only {len(matrix):,} images"
        return _Cut(cut(tree, count=count), reason)
    chosen = choose_count(matrix, tree, report=screen.report)
    if not chosen.distinct:
        screen.warn(
            f"the clusters do not stand apart ({chosen.reason}): {setting('count')} or "
            f"{setting('below')} sets how many there are"
        )
    return _Cut(cut(tree, count=chosen.count), chosen.reason, chosen.silhouette)
