"""Runs of all pairs of one collection, for what needs every distance."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.common.text import printable
from ...pipeline.images.survey import ImageRecord
from ...pipeline.runs.reopen import reopen_kind, reopen_records
from ...pipeline.runs.run import FinishedRun
from ..session.settings import parse_bytes, show_bytes


@dataclass(frozen=True)
class WholeRun:
    """A run of all pairs.

    Attributes
    ----------
    run
        The run.
    images
        The usable images: number k is row k of the matrix.
    failed
        Number of the others.
    """

    run: FinishedRun
    images: list[ImageRecord]
    failed: int

    @cached_property
    def paths(self) -> list[str]:
        """The images as people read them."""
        return [printable(image.path) for image in self.images]

    def matrix(self) -> NDArray[np.float32]:
        """Read all distances: float32 [n, n]."""
        return np.asarray(self.run.distances)

    def rows(self, memory: str, picked: int) -> Callable[[int], NDArray[np.float32]]:
        """Return a function that returns row i of the matrix.

        The matrix is read whole if it fits `memory` and that costs no more than reading the rows of
        `picked` images, each with the band of rows that lies in the same files.
        """
        lazy: Any = self.run.distances
        count = len(self.images)
        bands = len(lazy.chunks[0])
        if 4 * count * count <= parse_bytes(memory) and picked >= bands:
            matrix = self.matrix()
            return lambda i: matrix[i]
        return lambda i: np.asarray(lazy[i])

    def medoid(self) -> int | None:
        """Return the image with the smallest mean distance to all, of equals the first.

        Reads the matrix band by band; None if there is no image.
        """
        lazy: Any = self.run.distances
        if not self.images:
            return None
        height = lazy.chunks[0][0]
        tops = range(0, len(self.images), height)
        sums = [np.asarray(lazy[top : top + height]).sum(1, dtype=np.float64) for top in tops]
        return int(np.argmin(np.concatenate(sums)))

    def number(self, image: str | os.PathLike[str] | int) -> int:
        """Return the row of an image that somebody named.

        Parameters
        ----------
        image
            Its path as the run has it, the end of it that no other image has, or its row.

        Raises
        ------
        UsageError
            No image is called so, or several are.
        """
        if isinstance(image, int | np.integer):
            image = int(image)
            if not 0 <= image < len(self.images):
                raise UsageError(
                    f"{setting('start', image)} is no image of the run, which has "
                    f"{len(self.images):,}, the first of which is 0"
                )
            return image
        path = os.fspath(image)
        name, whole = printable(path), {printable(path), printable(os.path.abspath(path))}
        exact = [n for n, path in enumerate(self.paths) if path in whole]
        ends = [n for n, path in enumerate(self.paths) if path.endswith((f"/{name}", f"#{name}"))]
        found = exact or ends
        if len(found) == 1 or exact:
            return found[0]
        if not found:
            example = f", such as {self.paths[0]}" if self.paths else ""
            raise UsageError(
                f"{name} is no usable image of {printable(str(self.run.path))}: its images.parquet "
                f"names them{example}"
            )
        raise UsageError(
            f"{len(found):,} images end in {name}, such as {self.paths[found[0]]} and "
            f"{self.paths[found[1]]}: name more of the path"
        )


def whole_run(run: FinishedRun, asked: str) -> WholeRun:
    """Check that a run has the distances of all pairs of one collection.

    Parameters
    ----------
    asked
        The command that needs them, for messages.

    Raises
    ------
    UsageError
        The run has other distances.
    LpipstoreError
        The run is damaged.
    """
    kind = reopen_kind(run, asked)
    shown = printable(str(run.path))
    if kind != "pairs":
        raise UsageError(
            f"{shown} is a run of {run.kind}, and {asked} needs the distances of all pairs of one "
            f"collection: make a run of pairs without {setting('below')}, {setting('top_k')} and "
            f"{setting('group_by')}"
        )
    records = reopen_records(run)
    usable = [record for record in records if not record.error]
    if run.distances.shape != (len(usable),) * 2:
        raise LpipstoreError(
            f"{shown} is damaged: its table has {len(usable):,} usable images, its matrix "
            f"{' × '.join(map(str, run.distances.shape))} distances; make the run again"
        )
    return WholeRun(run, usable, len(records) - len(usable))


def need_memory(need: int, memory: str, what: str) -> None:
    """Raise `UsageError` if something takes more bytes than the setting ``memory`` grants."""
    if need > parse_bytes(memory):
        raise UsageError(
            f"{what} takes {show_bytes(need)}, and {setting('memory')} grants {memory}: grant more "
            "if the machine has it, or take fewer images"
        )
