"""Find image files in folders and by patterns."""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...cache.errors import UsageError
from ..common.text import printable

# fmt: off
IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".webp", ".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".pcx",
    ".qoi",
))
# fmt: on


@dataclass(frozen=True)
class Found:
    """What a search found: image files in order, and folders that could not be read."""

    paths: list[str]
    unreadable: list[tuple[str, str]]


def find_images(sources: Iterable[str | os.PathLike[str]]) -> Found:
    """List the image files given by folders, files and glob patterns.

    Folders are searched recursively, following links but never in a loop, for names with a suffix
    in `IMAGE_SUFFIXES`; names that begin with a dot are skipped. A file given by name is taken
    whatever its suffix. Files are sorted by name, folder by folder; a file found twice is listed
    once.

    Raises
    ------
    UsageError
        A source does not exist, or a pattern matches nothing.
    """
    found: dict[str, str] = {}
    unreadable: list[tuple[str, str]] = []
    for source in sources:
        for path in _expand(os.fspath(source)):
            files = _walk(path, unreadable) if os.path.isdir(path) else iter((path,))
            for file in files:
                found.setdefault(os.path.abspath(file), file)
    return Found(list(found.values()), unreadable)


def _expand(source: str) -> list[str]:
    if os.path.lexists(source):
        return [source]
    if glob.has_magic(source):
        matches = sorted(glob.glob(source, recursive=True))
        if not os.path.splitext(source)[1]:  # without a suffix it is filtered like a folder
            matches = [m for m in matches if _suffix(m) in IMAGE_SUFFIXES or os.path.isdir(m)]
        if matches:
            return matches
        raise UsageError(f"no image matches the pattern {printable(source)}")
    raise UsageError(f"no such file or folder: {printable(source)}")


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _walk(folder: str, unreadable: list[tuple[str, str]]) -> Iterator[str]:
    """Yield the image files below `folder` in order; append unreadable folders to `unreadable`."""
    seen: set[tuple[int, int]] = set()

    def note(error: OSError) -> None:
        unreadable.append((str(error.filename), f"folder cannot be read: {error.strerror}"))

    for root, folders, names in os.walk(folder, followlinks=True, onerror=note):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:  # a link back to a visited folder
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if _suffix(name) in IMAGE_SUFFIXES and not name.startswith("."):
                yield os.path.join(root, name)
