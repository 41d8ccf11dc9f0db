"""Open finished runs."""

import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cache.errors import LpipstoreError, UsageError
from ..common.optional import optional
from ..common.text import printable
from ..sources.names import is_url, without_password

if TYPE_CHECKING:
    import dask.array
    import pandas
    import pyarrow
    import zarr
    from numpy.typing import NDArray
from .files import (
    DISTANCES,
    GROUPS,
    IMAGES,
    JUDGEMENTS,
    MANIFEST,
    METRICS,
    PAIRS,
    SUMMARY,
    read_json,
)


@dataclass(frozen=True, repr=False)
class FinishedRun:
    """A run that has ended, as it lies in its folder; `lpipstore.Run` adds what people look at.

    Attributes
    ----------
    path
        The folder of the run. Of a run that was made without a folder it is a temporary one, which
        goes when the run does.
    """

    path: Path

    @property
    def kind(self) -> str:
        """The function of `lpipstore` that makes such a run: "pairs", "below", "train" and so on.

        A run of `rescore` is of the kind of the run that it rescored, and one of `neighbours` is a
        run of `compare`.
        """
        asked = self.manifest
        if asked.get("command") == "compare":
            return "compare"
        if asked.get("group_by"):
            return "groups"
        if asked.get("top_k") is not None:
            return "nearest"
        return "below" if asked.get("below") is not None else str(asked.get("command"))

    @property
    def mean(self) -> float | None:
        """Mean distance of the pairs scored or listed; None if there are none."""
        return self._figure("mean")

    @property
    def std(self) -> float | None:
        """The standard deviation of the distances; None as for `mean`."""
        return self._figure("std")

    @property
    def stderr(self) -> float | None:
        """The standard error of the mean over images, which pairs share; None if not defined."""
        return self._figure("stderr")

    @property
    def forwards(self) -> int:
        """How many images went through the backbone; the store had the rows of the others."""
        return int(self.summary["forwards"])

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The settings of the run, with digests and versions."""
        return read_json(self.path / MANIFEST)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Counts, seconds for each stage, and statistics of the distances."""
        return read_json(self.path / SUMMARY)

    @cached_property
    def images(self) -> "pyarrow.Table":
        """The collection: index, path, status, error, content_hash, width, height, bytes."""
        return self._table(IMAGES)

    @cached_property
    def pairs(self) -> "pyarrow.Table":
        """The pairs of a list: i, j, path_i, path_j, distance, and the list's other columns."""
        return self._table(PAIRS)

    @cached_property
    def groups(self) -> "pyarrow.Table":
        """The groups of a collection: group, images, pairs, mean, std, stderr."""
        return self._table(GROUPS)

    @cached_property
    def metrics(self) -> "pyarrow.Table":
        """The epochs of a training: epoch, part, loss, choice, agreement, and so on."""
        return self._table(METRICS)

    @cached_property
    def judgements(self) -> "pyarrow.Table":
        """The judgements of a training of a head, with the distances under it.

        Columns part (train, held_out), ref, p0, p1 (the ``index`` in `images`), judge, votes,
        start_d0, start_d1 (under the head at the start), d0, d1, and the expected share of votes
        for p1. Trainings whose images pass through the network have none.
        """
        return self._table(JUDGEMENTS)

    def condensed(self) -> "NDArray[np.float32]":
        """Return the distances of all pairs as SciPy's clustering takes them: float32.

        The pair (i, j) with i < j is at ``n * i - i * (i + 1) // 2 + j - i - 1``
        (`scipy.spatial.distance.squareform`).

        Raises
        ------
        UsageError
            The run is not of all pairs of a collection.
        """
        matrix: Any = self.distances
        if matrix.ndim != 2 or "side" in self.images.column_names:
            raise UsageError(
                f"{self!r} is not of all pairs of one collection, which alone have a condensed form"
            )
        count = matrix.shape[0]
        condensed = np.empty(count * (count - 1) // 2, np.float32)
        done, height = 0, matrix.chunks[0][0] if count else 1
        for top in range(0, count, height):
            band = matrix[top : top + height].compute()
            for row, line in enumerate(band, top):
                condensed[done : done + count - row - 1] = line[row + 1 :]
                done += count - row - 1
        return condensed

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the distances as a pandas DataFrame.

        Of a list, close pairs or groups one line per pair, as in `pairs`. Of a matrix the matrix
        itself, its rows and columns named by the images.

        Raises
        ------
        UsageError
            pandas is not installed.
        """
        pd = optional("pandas", "to_pandas needs pandas", "pandas")
        if (self.path / PAIRS).exists():
            return self.pairs.to_pandas()
        table = self.images
        scored = [status == "ok" for status in table.column("status").to_pylist()]
        sides = table.column("side").to_pylist() if "side" in table.column_names else None
        paths = table.column("path").to_pylist()
        names: dict[str, list[str]] = {"first": [], "second": []}
        for number, (path, good) in enumerate(zip(paths, scored, strict=True)):
            if good:
                names[sides[number] if sides else "first"].append(path)
        across = names["second"] if sides else names["first"]
        return pd.DataFrame(np.asarray(self.distances), index=names["first"], columns=across)

    def __repr__(self) -> str:
        summary = self.summary
        figures = [
            _counted(summary[name], name)
            for name in ("images", "pairs", "judgements")
            if isinstance(summary.get(name), int)
        ]
        if isinstance(groups := summary.get("groups"), dict):
            figures.append(_counted(groups["count"], "groups"))
        if "listed" in summary:
            figures.append(f"{summary['listed']:,} listed")
        if self.mean is not None:
            figures.append(f"mean {self.mean:.4f}")
        if summary.get("trained") is False:
            figures.append("untrained weights")
        return f"<Run of {self.kind}: {', '.join(figures)}; {printable(str(self.path))}>"

    def _figure(self, name: str) -> float | None:
        found = self.summary.get(name)
        return None if found is None else float(found)

    def _table(self, name: str) -> "pyarrow.Table":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with (self.path / name).open("rb") as file:
                return pq.read_table(file)
        except FileNotFoundError as error:
            raise self._has_no(name) from error
        except (OSError, pa.ArrowException) as error:
            raise self._is_damaged(name, error) from error

    def _has_no(self, name: str) -> UsageError:
        return UsageError(
            f"{printable(str(self.path))} is a run of lpipstore {self.manifest['command']} and has "
            f"no {name}"
        )

    def _is_damaged(self, name: str, error: Exception) -> LpipstoreError:
        reason = printable(str(error).partition("\n")[0])
        return LpipstoreError(
            f"{printable(str(self.path / name))} is damaged ({reason}): make the run again"
        )

    @property
    def distances(self) -> "dask.array.Array":
        """The float32 matrix as a lazy dask array; ``.compute()`` reads it whole.

        [N, N] for all pairs, [N, M] for two folders; for a list, its distinct pairs in an order of
        their own (`pairs` has them as listed). It keeps the run, and with it a temporary folder.
        """
        import dask.array
        import zarr

        if not (self.path / DISTANCES).exists():
            raise self._has_no(DISTANCES)
        try:
            array = zarr.open_array(self.path / DISTANCES, mode="r")
        except (OSError, ValueError) as error:  # JSON errors are ValueErrors
            raise self._is_damaged(DISTANCES, error) from error
        kept = _Distances(self, array)
        meta = np.empty((0,) * array.ndim, array.dtype)
        lazy: dask.array.Array = dask.array.from_array(kept, array.chunks, name=False, meta=meta)  # type: ignore[no-untyped-call]
        return lazy


class _Distances:
    """Distances on disk that keep their run: its folder may go with it, and they with the folder.

    Zarr reads NaN where a chunk is gone, which no finished run has: that is an error.
    """

    def __init__(self, run: FinishedRun, array: "zarr.Array[Any]") -> None:
        self.run = run
        self.array = array
        self.shape, self.ndim, self.dtype = array.shape, array.ndim, array.dtype

    def __getitem__(self, index: Any) -> "NDArray[np.float32]":  # noqa: ANN401 - as NumPy takes it
        return complete(np.asarray(self.array[index]), self.run)


def complete(distances: "NDArray[np.float32]", run: FinishedRun) -> "NDArray[np.float32]":
    """Return distances read from a run.

    Raises
    ------
    LpipstoreError
        Some are NaN: a chunk of the array on disk is missing.
    """
    if np.isnan(distances).any():
        raise LpipstoreError(
            f"the matrix in {printable(str(run.path))} lacks distances: give the command that "
            "made it again"
        )
    return distances


def _counted(count: int, things: str) -> str:
    return f"{count:,} {things.removesuffix('s') if count == 1 else things}"


class DifferentMetrics(UserWarning):
    """Distances of several runs are not comparable: heads, backbones or sizes differ."""


_METRIC = (
    "head_digest",
    "backbone",
    "taps",
    "weights",
    "lpips_version",
    "trunk_dtype",
    "size",
    "resize",
    "colours",
    "range",
    "precision",
)


def open_runs(*folders: str | os.PathLike[str]) -> list[FinishedRun]:
    """Open several finished runs to compare or combine them.

    Warns with `DifferentMetrics`, naming the differences, unless all distances were made with the
    same head, backbone, weights, image size and precision (also of the trunk).

    Raises
    ------
    UsageError
        A folder is not a run, or its run is not finished.
    """
    runs = [open_run(folder) for folder in folders]
    for run in runs[1:]:
        different = [
            f"{name} {run.manifest.get(name)} and {runs[0].manifest.get(name)}"
            for name in _METRIC
            if run.manifest.get(name) != runs[0].manifest.get(name)
        ]
        if different:
            warnings.warn(
                f"the distances in {run.path} and {runs[0].path} do not mean the same: "
                f"{'; '.join(different)}",
                DifferentMetrics,
                stacklevel=3,  # who called `lpipstore.open_runs`
            )
    return runs


def open_run(folder: str | os.PathLike[str]) -> FinishedRun:
    """Open the folder of a finished run.

    Raises
    ------
    UsageError
        The folder is not a run, or the run is not finished; or it is a URL.
    """
    if is_url(os.fspath(folder)):
        raise UsageError(
            f"{printable(without_password(os.fspath(folder)))} is a URL, and a run is opened in a "
            "folder of this machine: `lpipstore export run URL FOLDER` or lpipstore.copy_run "
            "copies it"
        )
    run = FinishedRun(Path(folder))
    read_json(run.path / MANIFEST)
    if not (run.path / SUMMARY).exists():
        raise UsageError(f"the run in {folder} is not finished: give its command again to go on")
    return run
