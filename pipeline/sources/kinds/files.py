"""Image files: by themselves, or all of a folder."""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..formats.open_file import read_file
from ..identity import identify
from ..names import is_image_name
from ..source import Listing, SourceOptions

if TYPE_CHECKING:
    from ....cache.index import FileIdentity


class Files:
    """A folder with its subfolders, or one file; members are paths.

    Folders are searched following links but never in a loop, for names with a suffix in
    `IMAGE_SUFFIXES`; names that begin with a dot are skipped. Files are sorted by name, folder by
    folder. A file given by name is taken whatever its suffix.
    """

    sequential = False

    def __init__(self, place: str, options: SourceOptions | None = None) -> None:
        self.place = place

    @staticmethod
    def takes(place: str) -> bool:
        """Return True: what is of no other kind is taken for a file or a folder."""
        return True

    def list(self) -> Listing:
        """List the image files; folders that cannot be read are named."""
        if not os.path.isdir(self.place):
            return Listing([self.place])
        listing = Listing()
        listing.members += walk(self.place, listing.unreadable)
        return listing

    def version(self, member: str) -> "FileIdentity":
        """Return path, size, modification time and inode."""
        return identify(member)

    def read(self, member: str) -> bytes:
        """Read a file."""
        return read_file(member)

    def close(self) -> None:
        """Do nothing: no file stays open."""


def walk(
    folder: str,
    unreadable: list[tuple[str, str]],
    wanted: Callable[[str], bool] = is_image_name,
) -> Iterator[str]:
    """Yield the wanted files below `folder` in order, by default image files.

    Appends folders that cannot be read to `unreadable`, with the reason.
    """
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
            path = os.path.join(root, name)
            if not name.startswith(".") and wanted(path):
                yield path
