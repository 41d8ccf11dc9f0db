"""Finished runs, with what people ask of them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...pipeline.runs.run import FinishedRun
from ...pipeline.runs.run import open_run as open_finished
from ...pipeline.runs.run import open_runs as open_several
from ..session.logged import LoggedScreen
from ..session.settings import Settings

if TYPE_CHECKING:
    from ..session.given import Images
    from .duplicates import Duplicates


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

    def report(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        images: "Images | None" = None,
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
        from ..session.given import sources_of
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
