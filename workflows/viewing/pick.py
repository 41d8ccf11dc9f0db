"""A few images that cover a collection: each the farthest from those picked before."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from ...cache.errors import UsageError, setting
from ...pipeline.analysis.cover import farthest_first
from ...pipeline.common.text import printable
from ...pipeline.runs.reopen import reopen_source_choices
from ...pipeline.runs.run import FinishedRun
from ...pipeline.sources.sources import Sources
from ..session.screen import Lines, Screen
from ..session.settings import Settings, source_options
from .outputs import check_outputs, lay_out, write_result
from .whole import whole_run

_SHOWN = 50  # images in the lines for people
_SCHEMA = pa.schema({"rank": pa.int64(), "path": pa.string(), "radius": pa.float64()})


@dataclass(frozen=True)
class Pick:
    """Images that cover a collection, in the order picked: the first K of them cover it, too.

    Attributes
    ----------
    images
        Usable images of the collection.
    paths
        The images picked.
    radii
        After each: the largest distance of any image of the collection to the nearest one picked.
    failed
        Images that could not be used.
    """

    title: ClassVar[str] = "Images that cover the collection"
    images: int
    paths: list[str]
    radii: list[float]
    failed: int

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "images": self.images,
            "failed": self.failed,
            "radius": self.radii[-1] if self.radii else None,
            "picked": self.table().to_pylist(),
        }

    def lines(self) -> Lines:
        """Return the images as lines for people."""
        shown = [
            (str(rank), f"{printable(path)} (radius {radius:.3f})")
            for rank, (path, radius) in enumerate(zip(self.paths, self.radii, strict=True), 1)
        ][:_SHOWN]
        more = len(self.paths) - len(shown)
        rest = [("", f"and {more:,} more images: {setting('out')} writes all")] if more else []
        picked = f"{len(self.paths):,}"
        if self.radii:
            picked += f": every image is within {self.radii[-1]:.3f} of one of them"
        return [
            ("images", f"{self.images:,}"),
            ("failed", f"{self.failed:,}"),
            ("picked", picked),
            *shown,
            *rest,
        ]

    def table(self) -> pa.Table:
        """Return rank (from 1), path, and radius after each image."""
        paths = [printable(path) for path in self.paths]
        columns = [list(range(1, len(paths) + 1)), paths, self.radii]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)]
        return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def pick_images(
    run: FinishedRun,
    count: int,
    screen: Screen,
    *,
    start: str | os.PathLike[str] | int | None = None,
    out: Path | None = None,
    link: Path | None = None,
    memory: str = "4GB",
) -> Pick:
    """Pick images that cover a collection: greedy k-centre, within 4 times the best LPIPS radius.

    Parameters
    ----------
    run
        A run of all pairs.
    count
        Images to pick; of more than there are, all are.
    start
        The first: a path, the end of one, or a number; None takes the medoid.
    out
        A .csv, .json or .parquet file to write them to.
    link
        A new folder to lay them out in, with their ranks before their names.
    memory
        The matrix is read whole if it fits (4 n² bytes) and many are picked, else row by row.

    Raises
    ------
    UsageError
        A choice is wrong, or the run has other distances.
    LpipstoreError
        The run is damaged, or a result cannot be written.
    """
    if count < 1:
        raise UsageError(f"{setting('count', count)} must be at least 1")
    check_outputs(out, link)
    whole = whole_run(run, "pick")
    first = whole.medoid() if start is None else whole.number(start)
    kept = min(count, len(whole.images))
    indices, radii = farthest_first(whole.rows(memory, kept), count, len(whole.images), first)
    if count > len(whole.images):
        screen.warn(f"there are only {len(whole.images):,} images: all of them are picked")
    paths = [whole.images[n].path for n in indices]
    found = Pick(len(whole.images), paths, radii.tolist(), whole.failed)
    if out is not None:
        write_result(found, out)
    if link is not None:
        width = len(str(len(paths)))
        ranked = {f"{rank:0{width}}": path for rank, path in enumerate(paths, 1)}
        chosen: dict[str, Any] = {**reopen_source_choices(run)}
        sources = Sources(source_options(replace(Settings(), **chosen)))
        try:
            lay_out(ranked, link, sources, screen)
        finally:
            sources.close()
    return found
