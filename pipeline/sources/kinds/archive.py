"""What archives have in common: one file with many images in it, which is never unpacked."""

import os
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ...common.text import printable
from ..formats.open_file import OpenFile
from ..names import is_image_name, is_url, member_name
from ..source import ImageError, Listing, SourceOptions

if TYPE_CHECKING:
    from ....cache.index import FileIdentity

MOST_BYTES = 512 << 20
"""Bytes that one image takes at most: the RGB pixels of the largest that Pillow decodes."""


class Entry(Protocol):
    """Where a member lies in its archive."""

    @property
    def size(self) -> int:
        """Bytes of the image file."""


E = TypeVar("E", bound=Entry)


@dataclass
class ArchiveContents(Generic[E]):
    """The images of an archive, by name, in order of storage.

    `unreadable` has (name, reason) of members that cannot be read, and ("", reason) of what is
    wrong with the archive.
    """

    members: dict[str, E] = field(default_factory=dict)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, entry: E) -> None:
        """Append a member; a later one of the same name replaces it, as it would on unpacking."""
        if self.members.pop(name, None) is not None:
            self.unreadable.append(
                (name, "a later member has the same name and is taken, as when unpacking")
            )
        self.members[name] = entry


class Archive(ABC, Generic[E]):
    """Images in one file; members are named by their paths in it.

    A path is only ever a name: nothing is written, so that absolute paths and ``..`` do no harm.
    Members are those with the suffix of an image; hidden ones and macOS's ``__MACOSX`` are left
    out, as in folders. The list of members is read once and kept.
    """

    def __init__(self, place: str, options: SourceOptions | None = None) -> None:
        self.place = place
        self._lock = threading.RLock()
        self._file: OpenFile | None = None
        self._version: tuple[int, int, int] | None = None
        self._contents: ArchiveContents[E] | None = None
        self._broken: str | None = None
        self._printed: dict[str, str] | None = None

    @property
    def sequential(self) -> bool:
        """Whether members are read quickly only in order: not if any byte can be read at once."""
        return False

    @abstractmethod
    def _index(self, file: OpenFile) -> ArchiveContents[E]:
        """List the members; raise `ImageError` if the file is no such archive."""

    @abstractmethod
    def _extract(self, file: OpenFile, entry: E) -> bytes:
        """Return the bytes of a member; raise `ImageError` if it is damaged."""

    def list(self) -> Listing:
        """List the images in order of storage; name what is lost."""
        contents = self._opened()[1]
        return Listing(
            list(contents.members),
            [
                (member_name(self.place, name) if name else self.place, reason)
                for name, reason in contents.unreadable
            ],
        )

    def version(self, member: str) -> "FileIdentity | None":
        """Return the archive's modification time and inode, the member's path and size."""
        from ....cache.index import FileIdentity

        try:
            file, contents = self._opened()
            entry = self._find(member, contents)
        except ImageError:
            return None  # reading says why
        path = os.fsencode(member_name(os.path.abspath(self.place), member))
        _, mtime_ns, inode = file.version
        return FileIdentity(path, entry.size, mtime_ns, inode, file.seen_ns)

    def read(self, member: str) -> bytes:
        """Return the bytes of an image file in the archive."""
        file, contents = self._opened()
        entry = self._find(member, contents)
        if entry.size > MOST_BYTES:
            raise ImageError(
                f"refused as a decompression bomb: it declares {entry.size:,} bytes, and an "
                f"image has at most {MOST_BYTES:,}"
            )
        try:
            return self._extract(file, entry)
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the file; reads in other threads end first."""
        with self._lock:
            self._file = None

    def _opened(self) -> tuple[OpenFile, ArchiveContents[E]]:
        """Return the open file and its members; raise `ImageError` if there are none."""
        file, contents = self._file, self._contents
        if file is not None and contents is not None:
            return file, contents
        with self._lock:
            if self._broken is not None:
                raise ImageError(self._broken)
            try:
                return self._open()
            except OSError as error:
                self._broken = f"cannot be read: {error.strerror or error}"
            except ImageError as error:
                self._broken = str(error)
            raise ImageError(self._broken)

    def _open(self) -> tuple[OpenFile, ArchiveContents[E]]:
        file = self._file or OpenFile(self.place)
        if self._version not in (None, file.version):
            raise ImageError("the archive changed during the run; run again")
        if self._contents is None:
            if not file.size:
                raise ImageError("the file is empty")
            self._contents = self._index(file)
        self._file, self._version = file, file.version
        return file, self._contents

    def _find(self, member: str, contents: ArchiveContents[E]) -> E:
        """Return the entry of a member; tables of runs name it as `printable` text."""
        entry = contents.members.get(member)
        if entry is None:
            if self._printed is None:
                self._printed = {printable(name): name for name in contents.members}
            name = self._printed.get(member, plain_name(member))
            entry = contents.members.get(name)
        if entry is None:
            raise ImageError("there is no such image in the archive")
        return entry


def is_archive(place: str, suffixes: tuple[str, ...]) -> bool:
    """Return whether a path is that of an archive with one of the suffixes."""
    return place.lower().endswith(suffixes) and not is_url(place) and not os.path.isdir(place)


def plain_name(path: str) -> str:
    """Return a member's path without ``./`` at its start, which ``tar -C folder .`` puts there."""
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    return path


def is_wanted(path: str) -> bool:
    """Return whether a member is an image file that a search takes: not hidden, not macOS's."""
    if not is_image_name(path):
        return False
    parts = path.split("/")
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return not hidden and "__MACOSX" not in parts
