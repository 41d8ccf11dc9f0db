"""Finished runs, with what people ask of them."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from ...pipeline.runs.run import FinishedRun
from ...pipeline.runs.run import open_run as open_finished
from ...pipeline.runs.run import open_runs as open_several
from ..session.given import Images, sources_of
from ..session.keywords import OptionsWithoutHead, count_of, distance_of, settings_of
from ..session.logged import LoggedScreen
from ..session.settings import Settings

if TYPE_CHECKING:
    import pyarrow

    from .clusters import Clusters
    from .duplicates import Duplicates
    from .pick import Pick


class Run(FinishedRun):
    """A finished run: what `open_run` and the functions of `lpipstore` return.

    Its attributes are those of `lpipstore.pipeline.runs.run.FinishedRun`: what lies in its folder.

    Examples
    --------
    >>> import lpipstore, torch
    >>> pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> run = lpipstore.pairs(pictures, value_range=(0, 1), weights="random")
    >>> run.kind, run.mean == run.summary["mean"], run.forwards == run.summary["forwards"]
    ('pairs', True, True)
    """

    def duplicates(
        self, below: float | None = None, *, linkage: str = "single", keep: str = "largest"
    ) -> "Duplicates":
        """Find groups of near-duplicates, as `lpipstore.duplicates` does."""
        from .duplicates import find_duplicates

        with LoggedScreen(progress=False) as screen:
            return find_duplicates(
                [self.path], Settings(), screen, below=below, linkage=linkage, keep=keep
            )

    def clusters(
        self,
        count: int | None = None,
        below: float | None = None,
        linkage: str = "average",
        *,
        memory: str = "4GB",
    ) -> "Clusters":
        """Cluster the images of a run of `pairs` by their distances.

        Parameters
        ----------
        count
            Number of clusters.
        below
            Instead of a number: join clusters as long as they are closer than this. Without either,
            the cut of 2 to 20 clusters with the largest mean silhouette is taken.
        linkage
            How far two clusters are apart: the "average", largest ("complete") or smallest
            ("single") distance of their images.
        memory
            What may be taken; 12 n² bytes are needed.

        Returns
        -------
        Clusters
            ``clusters``, each with its medoid and paths; ``labels``; ``table()`` has a line for
            each image.

        Raises
        ------
        UsageError
            An argument is invalid, or the run is not of all pairs of one collection.

        Examples
        --------
        >>> import lpipstore, torch
        >>> pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> pictures[2:] = pictures[:2] * 0.99
        >>> run = lpipstore.pairs(pictures, value_range=(0, 1), weights="random")
        >>> run.clusters(2).labels.tolist()
        [0, 1, 0, 1]
        """
        from .clusters import find_clusters

        with LoggedScreen(progress=False) as screen:
            return find_clusters(
                self, screen, count=count, below=below, linkage=linkage, memory=memory
            )

    def pick(
        self, count: int, start: str | os.PathLike[str] | int | None = None, *, memory: str = "4GB"
    ) -> "Pick":
        """Pick images that cover the collection of a run of `pairs`.

        Each is the farthest from those picked before, so that the first few cover it, too.

        Parameters
        ----------
        count
            Images to pick.
        start
            The first: a path, the end of one, or a number; None takes the medoid.
        memory
            The matrix is read whole if it fits and many are picked, else row by row.

        Returns
        -------
        Pick
            ``paths`` in the order picked, ``radii`` after each, and ``table()``.

        Raises
        ------
        UsageError
            An argument is invalid, or the run is not of all pairs of one collection.

        Examples
        --------
        >>> import lpipstore, torch
        >>> pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> pictures[2:] = pictures[:2] * 0.99
        >>> run = lpipstore.pairs(pictures, value_range=(0, 1), weights="random")
        >>> run.pick(2, start=3).paths[0]
        'python://images/3'
        """
        from .pick import pick_images

        with LoggedScreen(progress=False) as screen:
            return pick_images(self, count, screen, start=start, memory=memory)

    def report(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        images: Images | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> Path:
        """Write the run as one page of HTML, which opens without network, and return its path.

        Parameters
        ----------
        out
            The file; None is ``report.html`` in the folder of the run. An earlier report is
            replaced, any other file is an error.
        images, value_range
            What the run was made of, if that was in memory: the page takes its pictures from there.
            Without it grey fields stand in their place.

        Raises
        ------
        UsageError
            There is another file at `out`.
        LpipstoreError
            The run is damaged, or the page cannot be written.

        Examples
        --------
        >>> import lpipstore, torch
        >>> pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> run = lpipstore.pairs(pictures, value_range=(0, 1), weights="random")
        >>> run.report(images=pictures, value_range=(0, 1)).name
        'report.html'
        """
        from .report.build import build_report

        held = [] if images is None else sources_of(images, value_range, None, "images")
        given = [one for one in held if not isinstance(one, str | os.PathLike)]
        path = None if out is None else Path(out).expanduser()
        with LoggedScreen(progress=False) as screen:
            return build_report(self, path, screen, given).path

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the figures, the closest pairs and a heat map."""
        from .report.notebook import notebook_html

        return notebook_html(self)

    def nearest(
        self,
        image: Images,
        k: int = 10,
        *,
        below: float | None = None,
        **options: Unpack[OptionsWithoutHead],
    ) -> "pyarrow.Table":
        """Find the images of the run that are nearest to a new one, or to each of several.

        Nothing is kept but rows in the store. `lpipstore.neighbours` makes a run of the same.

        Parameters
        ----------
        image
            A path, an array, a tensor or a Pillow image, or several, as for `lpipstore.pairs`.
        k
            Neighbours of each.
        below
            Return only images closer than this.
        options
            `store` must be the store of the run; `value_range` is that of `image`.

        Returns
        -------
        pyarrow.Table
            query (its number), rank (from 1), index (in ``run.images``; of two collections, among
            the usable images of both), path, distance.

        Examples
        --------
        >>> import lpipstore, torch
        >>> pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> run = lpipstore.pairs(pictures, value_range=(0, 1), weights="random")
        >>> run.nearest(pictures[2], 1, value_range=(0, 1)).to_pylist()
        [{'query': 0, 'rank': 1, 'index': 2, 'path': 'python://images/2', 'distance': 0.0}]
        """
        from .neighbours import find_neighbours

        queries = sources_of(
            image, options.get("value_range"), options.get("image_column"), "query"
        )
        with (
            tempfile.TemporaryDirectory(prefix="lpipstore-nearest-") as scratch,
            LoggedScreen(progress=options.get("progress", False)) as screen,
        ):
            find_neighbours(
                [self.path],
                queries,
                Path(scratch) / "run",
                settings_of(options),
                screen,
                below=distance_of(below),
                top_k=count_of(k),
            )
            pairs = open_finished(Path(scratch) / "run").pairs
        names = {"i": "query", "rank": "rank", "j": "index", "path_j": "path"}
        found = pairs.select([*names, "distance"])
        return found.rename_columns([*names.values(), "distance"])


def open_run(folder: str | os.PathLike[str]) -> Run:
    """Open the folder of a finished run.

    Raises
    ------
    UsageError
        The folder is not a run, or the run is not finished.
    """
    return Run(open_finished(folder).path)


def open_runs(*folders: str | os.PathLike[str]) -> list[Run]:
    """Open several finished runs to compare or combine them.

    Warns with `DifferentMetrics`, naming the differences, unless all distances were made with the
    same head, backbone, weights, image size and precision (also of the trunk).

    Raises
    ------
    UsageError
        A folder is not a run, or its run is not finished.
    """
    return [Run(run.path) for run in open_several(*folders)]
