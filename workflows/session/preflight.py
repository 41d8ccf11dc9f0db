"""What a person should know before something long or large begins, with the figure."""

import shutil
from pathlib import Path

from ...cache.errors import setting
from .collection import Collection
from .screen import Screen
from .settings import show_bytes

MANY_FORWARDS = 2000
LARGE_MATRIX = 1_000_000_000


def warn_of_forwards(collection: Collection, screen: Screen) -> None:
    """Warn of many images that have to go through the trunk first."""
    contents = collection.contents()
    missing = len(collection.features.lacking(contents))
    if missing >= MANY_FORWARDS:
        screen.warn(
            f"{missing:,} of {len(set(contents)):,} images are new to the store and go through the "
            f"trunk first; their rows take {show_bytes(missing * collection.row_bytes())}. It can "
            "be stopped at any time and goes on with the same command"
        )


def warn_of_matrix(numbers: int, out: Path, screen: Screen) -> None:
    """Warn of a large matrix, and of a disk that has no room for it."""
    need = 4 * numbers
    folder = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(folder).free
    if need > free:
        screen.warn(
            f"the matrix takes {show_bytes(need)}, and the disk of {setting('out')} has "
            f"{show_bytes(free)} free: the run will stop there, and goes on once there is room"
        )
    elif need >= LARGE_MATRIX:
        screen.warn(f"the matrix takes {show_bytes(need)} on disk")
