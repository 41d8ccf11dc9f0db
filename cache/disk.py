"""What the store asks of the file system: real sizes, atomic writes, syncing, errors."""

import contextlib
import ctypes
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import StoreError, StoreFull, setting

_fallocate = getattr(ctypes.CDLL(None), "fallocate", None)  # os.posix_fallocate changes the length
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE of linux/falloc.h
_TEMPORARY = ".lpipstore-unfinished-"  # followed by the PID


def real_bytes(path: Path | str) -> int:
    """Return the bytes that a file or folder takes on disk, 0 if it does not exist."""
    try:
        return os.stat(path).st_blocks * 512
    except OSError:
        return 0


def whole_bytes(file: Path | int) -> int:
    """Return the bytes that a file without holes takes on disk, at least its length.

    Some file systems, such as ZFS, report the blocks only seconds after the file was written.
    """
    stat = os.stat(file)
    return max(stat.st_blocks * 512, stat.st_size)


def preallocate(fd: int, size: int) -> None:
    """Allocate the blocks of an empty file in advance; its length stays 0.

    Writing then takes about two thirds of the time (ext4). If this is not supported, or the disk
    has less room, blocks are allocated as rows are written.
    """
    if _fallocate is None or _fallocate(fd, _KEEP_SIZE, 0, size):
        os.ftruncate(fd, 0)


def sync_folder(folder: Path) -> None:
    """Wait until the entries of a folder are on the disk (fsync)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def list_folder(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; none if there is no such folder."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def list_files(folder: Path) -> list[str]:
    """Return the names of the files in a folder, sorted; none if there is no such folder."""
    return [name for name in list_folder(folder) if not (folder / name).is_dir()]


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}")
    try:
        temporary.write_text(json.dumps(value, indent=2))
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def is_temporary(name: str) -> bool:
    """Return whether a file name is one of the temporary names of `write_json`."""
    return re.fullmatch(rf"{re.escape(_TEMPORARY)}\d+", name, re.ASCII) is not None


def remove_unfinished(folder: Path) -> None:
    """Remove unfinished files of `write_json` that killed processes left in a folder."""
    for name in list_files(folder):
        if is_temporary(name):
            (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn `OSError` into `StoreError`."""
    try:
        yield
    except OSError as error:
        raise store_error(path, error) from error


def store_error(path: Path, error: OSError) -> StoreError:
    """Return the `StoreError` for an `OSError`: `StoreFull` if no space is left."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFull(
            f"no space left for the store at {path} ({error.strerror}): what it holds stays; "
            f"make room on the disk, or set a smaller {setting('limit')}"
        )
    return StoreError(f"the store at {path} cannot be written: {error}")
