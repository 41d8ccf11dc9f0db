"""Write into the folder of a run: one process at a time, never into another run."""

import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ...cache.errors import LpipstoreError, UsageError, setting
from ..common.atomic import check_writable, is_temporary
from ..common.text import printable
from .files import DISTANCES, MANIFEST, PARTS, STATISTICS, read_json, write_json
from .lock import RunLock

# For display; digests decide whether two runs are the same
_PROVENANCE = ("folder", "head", "rescored_from", "versions", "weights_origin")


@contextmanager
def writing_run(folder: Path, manifest: Mapping[str, Any]) -> Iterator[None]:
    """Hold the folder of a run while it is written: a new run, or the same run continued.

    Any `OSError` inside the ``with`` block becomes one `LpipstoreError`; what is finished stays,
    and the same command continues from there.

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
    """Return whether `writing_run` would continue a run in `folder`; writes nothing.

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
    """Turn errors of writing to the folder of a run into `LpipstoreError`."""
    try:
        yield
    except OSError as error:
        raise LpipstoreError(
            f"cannot write results to {printable(str(folder))}: {error.strerror or error}; what is "
            "finished stays: make it writable and give the same command again, or choose another "
            f"{setting('out')}"
        ) from error


def _lock(folder: Path) -> RunLock:
    try:
        return RunLock(folder)
    except BlockingIOError as error:
        raise LpipstoreError(
            f"another process is writing the run in {printable(str(folder))}: wait for it, or "
            f"choose another {setting('out')}"
        ) from error


def _need_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            f"{printable(str(folder))} is a file: choose a new folder for {setting('out')}"
        )


def _holds_run(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Return whether the folder holds the run of the manifest; False if it is empty.

    Raises
    ------
    UsageError
        The folder holds another run, or files that are not a run's.
    """
    present = sorted(path.name for path in folder.iterdir() if not is_temporary(path))
    if MANIFEST in present:
        _refuse_another_run(folder, manifest)
    elif present:
        raise UsageError(
            f"{printable(str(folder))} is not empty and holds no run "
            f"({printable(present[0])} is there): choose a new folder for {setting('out')}"
        )
    return bool(present)


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed process left in a run: ours and zarr's.

    Only the run's own folders are searched, not other folders inside it.
    """
    places = folder, folder / PARTS
    ours = [path for place in places for path in place.glob("*") if is_temporary(path)]
    arrays = folder / DISTANCES, folder / STATISTICS
    zarrs = [path for array in arrays for path in array.rglob("*.partial") if _is_zarrs(path)]
    for path in (*ours, *zarrs):
        path.unlink()


def _is_zarrs(path: Path) -> bool:
    """Return whether `path` is named like a temporary file of zarr's `LocalStore`."""
    return re.fullmatch(r"(zarr|\d+)\.[0-9a-f]{32}\.partial", path.name) is not None


def _refuse_another_run(folder: Path, manifest: Mapping[str, Any]) -> None:
    different = differences(read_json(folder / MANIFEST), manifest)
    if different:
        raise UsageError(
            f"{printable(str(folder))} holds a different run ({'; '.join(different)}): "
            f"choose another folder for {setting('out')}, or remove this one"
        )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe how two manifests differ; the list is empty if they are of the same run."""
    return [
        "the images are others, or in another order"
        if name == "collection"
        else f"{name}: {old.get(name)!r} there, {new.get(name)!r} now"
        for name in dict.fromkeys((*old, *new))
        if name not in _PROVENANCE and old.get(name) != new.get(name)
    ]
