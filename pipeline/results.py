"""A run on disk: what was asked, which images, every distance, and the figures that sum it up."""

import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from ..cache.errors import LpipstoreError, UsageError
from .atomic import check_writable, is_temporary, replacing
from .files import json_text, printable
from .images import ImageRecord
from .runlock import RunLock

if TYPE_CHECKING:
    import dask.array
    import pyarrow

FORMAT = 1
MANIFEST = "manifest.json"
IMAGES = "images.parquet"
PAIRS = "pairs.parquet"
GROUPS = "groups.parquet"
DISTANCES = "distances.zarr"
STATISTICS = "statistics.zarr"
PARTS = "parts"
SUMMARY = "summary.json"
# For people; what is the same run, the digests decide
_PROVENANCE = ("folder", "head", "rescored_from", "versions", "weights_origin")


def contents_digest(contents: Iterable[bytes | None]) -> str:
    """Return the xxh3-128 over content hashes in order (hex); None stands for an unusable file."""
    digest = xxhash.xxh3_128()
    for content in contents:
        digest.update(content or b"unusable")
    return digest.hexdigest()


@contextmanager
def writing_run(folder: Path, manifest: Mapping[str, Any]) -> Iterator[None]:
    """Hold the folder of a run while it is written: new, or the same run that goes on.

    Everything that goes wrong with writing inside the ``with`` block ends in one message; what is
    finished stays, and the same command goes on from there.

    Raises
    ------
    UsageError
        The folder holds a different run (the message names what differs) or other files.
    LpipstoreError
        The folder cannot be written to, or another process is writing this run.
    """
    with _told(folder):
        _need_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with closing(_lock(folder)):
            begun = _holds_run(folder, manifest)
            _remove_leftovers(folder)
            if not begun:
                write_json(folder / MANIFEST, manifest)
            yield


def check_run(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Tell whether `writing_run` would go on with a run in `folder`; nothing is written.

    Raises
    ------
    UsageError, LpipstoreError
        What `writing_run` would raise.
    """
    with _told(folder):
        _need_folder(folder)
        check_writable(folder)
        if not folder.exists():
            return False
        with closing(_lock(folder)):
            return _holds_run(folder, manifest)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turn what goes wrong with writing to the folder of a run into an `LpipstoreError`."""
    try:
        yield
    except OSError as error:
        raise LpipstoreError(
            f"cannot write results to {printable(str(folder))}: {error.strerror or error}; what is "
            "finished stays: make it writable and give the same command again, or choose another "
            "--out"
        ) from error


def _lock(folder: Path) -> RunLock:
    try:
        return RunLock(folder)
    except BlockingIOError as error:
        raise LpipstoreError(
            f"another process is writing the run in {printable(str(folder))}: wait for it, or "
            "choose another --out"
        ) from error


def _need_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{printable(str(folder))} is a file: choose a new folder for --out")


def _holds_run(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Tell whether the folder holds the run of the manifest; False if it is empty.

    Raises
    ------
    UsageError
        It holds another run, or files of somebody else.
    """
    present = sorted(path.name for path in folder.iterdir() if not is_temporary(path))
    if MANIFEST in present:
        _refuse_another_run(folder, manifest)
    elif present:
        raise UsageError(
            f"{printable(str(folder))} is not empty and holds no run "
            f"({printable(present[0])} is there): choose a new folder for --out"
        )
    return bool(present)


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a run: ours, and zarr's.

    Only where a run has files of its own: a folder of somebody else in it is not looked at.
    """
    places = folder, folder / PARTS
    ours = [path for place in places for path in place.glob("*") if is_temporary(path)]
    arrays = folder / DISTANCES, folder / STATISTICS
    zarrs = [path for array in arrays for path in array.rglob("*.partial") if _is_zarrs(path)]
    for path in (*ours, *zarrs):
        path.unlink()


def _is_zarrs(path: Path) -> bool:
    """Tell a temporary file of zarr's `LocalStore` by its name."""
    return re.fullmatch(r"(zarr|\d+)\.[0-9a-f]{32}\.partial", path.name) is not None


def _refuse_another_run(folder: Path, manifest: Mapping[str, Any]) -> None:
    different = differences(read_json(folder / MANIFEST), manifest)
    if different:
        raise UsageError(
            f"{printable(str(folder))} holds a different run ({'; '.join(different)}): "
            "choose another folder for --out, or remove this one"
        )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return in words what makes two manifests those of different runs; nothing if they are one."""
    return [
        "the images are others, or in another order"
        if name == "collection"
        else f"{name}: {old.get(name)!r} there, {new.get(name)!r} now"
        for name in dict.fromkeys((*old, *new))
        if name not in _PROVENANCE and old.get(name) != new.get(name)
    ]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run.

    Raises
    ------
    UsageError
        The file is not there: the folder is not a run.
    LpipstoreError
        The file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path.parent} is not a run of lpipstore: no {path.name}") from error
    except (OSError, ValueError) as error:
        raise LpipstoreError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise LpipstoreError(f"{path} is damaged: it should hold a JSON object")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file so that it is there whole or not at all."""
    with replacing(path) as file:
        file.write(json_text(content).encode() + b"\n")


def write_images(
    folder: Path, records: Sequence[ImageRecord], sides: Sequence[str] | None = None
) -> None:
    """Write the table of a collection; images that were scored are numbered as in the matrix.

    `sides` says for each image to which side of the matrix it belongs: each is numbered by itself.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    scored: Counter[str] = Counter()
    index = []
    for record, side in zip(records, sides or [""] * len(records), strict=True):
        index.append(None if record.error else scored[side])
        scored[side] += not record.error
    table = pa.table(
        {
            "index": pa.array(index, pa.int64()),
            **({} if sides is None else {"side": list(sides)}),
            "path": [printable(record.path) for record in records],
            "status": ["failed" if record.error else "ok" for record in records],
            "error": pa.array([record.error for record in records], pa.string()),
            "content_hash": pa.array(
                [record.content.hex() if record.content else None for record in records],
                pa.string(),
            ),
            "width": pa.array([record.width for record in records], pa.int32()),
            "height": pa.array([record.height for record in records], pa.int32()),
            "bytes": pa.array([record.bytes for record in records], pa.int64()),
        }
    )
    with replacing(folder / IMAGES) as file:  # an open file, for names that Arrow would not take
        pq.write_table(table, file)


@dataclass(frozen=True)
class Run:
    """A finished run, opened by `open_run`."""

    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What was asked, with digests and versions."""
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
        """The pairs of a list: i, j, path_i, path_j, distance, and what the list says of them."""
        return self._table(PAIRS)

    @cached_property
    def groups(self) -> "pyarrow.Table":
        """The groups of a collection: group, images, pairs, mean, std, stderr."""
        return self._table(GROUPS)

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

    @cached_property
    def distances(self) -> "dask.array.Array":
        """The float32 [N, N] matrix as a lazy dask array; ``.compute()`` reads it whole.

        For a list: its different pairs in an order of their own; `pairs` has them as listed.
        """
        import dask.array

        if not (self.path / DISTANCES).exists():
            raise self._has_no(DISTANCES)
        try:
            array: dask.array.Array = dask.array.from_zarr(self.path / DISTANCES)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:  # of JSON as well
            raise self._is_damaged(DISTANCES, error) from error
        return array


class DifferentMetrics(UserWarning):
    """Distances of several runs do not mean the same: heads, backbones or sizes differ."""


_METRIC = (
    "head_digest",
    "backbone",
    "taps",
    "weights",
    "lpips_version",
    "trunk_dtype",
    "size",
    "resize",
    "range",
    "precision",
)


def open_runs(*folders: str | os.PathLike[str]) -> list[Run]:
    """Open several finished runs that are to be compared or put together.

    Warns with `DifferentMetrics`, and names what differs, unless all distances were made by the
    same head, backbone, weights, size and precision, that of the trunk included.

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
                stacklevel=2,
            )
    return runs


def open_run(folder: str | os.PathLike[str]) -> Run:
    """Open the folder of a finished run.

    Raises
    ------
    UsageError
        The folder is not a run, or the run is not finished.
    """
    run = Run(Path(folder))
    read_json(run.path / MANIFEST)
    if not (run.path / SUMMARY).exists():
        raise UsageError(f"the run in {folder} is not finished: give its command again to go on")
    return run
