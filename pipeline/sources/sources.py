"""All sources of a command together: find images by what was given, and open them by name."""

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ...cache.errors import UsageError
from ..common.text import printable
from .kinds.array_files import ArrayFile
from .kinds.files import Files, walk
from .kinds.image_tables import ImageTable
from .kinds.remote import Remote, is_folder
from .kinds.tar_archive import TarArchive
from .kinds.video import Video
from .kinds.zip_archive import ZipArchive
from .lists import PIPED, expand, is_list
from .names import MEMBER, absolute, given_name, is_url, member_name, split_given, split_name
from .source import GivenSource, ImageData, ImageError, Source, SourceKind, SourceOptions

if TYPE_CHECKING:
    from ...cache.index import FileIdentity

KINDS: tuple[SourceKind, ...] = (
    Remote,
    ZipArchive,
    TarArchive,
    ArrayFile,
    ImageTable,
    Video,
    Files,
)
"""The kinds of sources; the first that takes a place has it."""

_MOST_OPEN = 64  # sources that keep their files open: far below what a process may open

Given: TypeAlias = str | os.PathLike[str] | GivenSource


@dataclass(frozen=True)
class Found:
    """What a search found, in order.

    Attributes
    ----------
    names
        The images.
    within
        The name of each within what was given: relative to the folder, or behind the ``#``; of an
        archive in a folder, both.
    unreadable
        (name, reason) of what cannot be read.
    """

    names: list[str] = field(default_factory=list)
    within: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)


class Sources:
    """Find images, and open them by their names.

    Names alone are enough to open an image, so that a list or an earlier run may name what no
    search has found. A copy in another process opens its files there.

    Parameters
    ----------
    options
        How sources read what is in them.
    """

    def __init__(self, options: SourceOptions | None = None) -> None:
        self.options = options or SourceOptions()
        self._files = Files("")
        self._remote = Remote("")  # all URLs share its connections
        self._open: dict[str, Source] = {}
        self._recent: dict[str, Source] = {}
        self._last: tuple[str, Source | None] = "", None
        self._given: dict[str, Source] = {}
        self._lock = threading.Lock()
        self._piped = False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}, "_recent": {}, "_last": ("", None), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {**state, "_lock": threading.Lock()}

    def close(self) -> None:
        """Close every source."""
        sources = (self._remote, *self._open.values(), *self._given.values())
        for source in {id(source): source for source in sources}.values():
            source.close()

    def add(self, source: GivenSource) -> list[str]:
        """Take a source that a program made; return the names of its images.

        Raises
        ------
        UsageError
            There is another one of that name.
        """
        members = source.list().members
        for member in members:
            name = given_name(source.place, member)
            if self._given.setdefault(name, source) is not source:
                raise UsageError(f"two images are called {name}: give their sources other names")
        return [given_name(source.place, member) for member in members]

    def find(self, given: Iterable[Given]) -> Found:
        """List the images of folders, files, patterns, lists and every other kind of source.

        An image found twice is listed once. What a list names and does not exist is found, too: it
        fails when it is read.

        Raises
        ------
        UsageError
            Something that was given does not exist, a pattern matches nothing, or a list cannot be
            read.
        """
        found = Found()
        seen: set[str] = set()
        for each in given:
            if not isinstance(each, str | os.PathLike):
                names = self.add(each)
                found.names.extend(names)
                found.within.extend(name.rpartition("/")[2] for name in names)
                continue
            one = os.fspath(each)
            if one == PIPED and self._piped:
                raise UsageError("- stands for standard input, which is read once: give it once")
            self._piped = self._piped or one == PIPED
            for place in expand(one, _holds_images):
                self._list(place, found, seen)
        return found

    def _list(self, place: str, found: Found, seen: set[str]) -> None:
        kind = _kind_of(place)
        if kind is Remote:
            self._list_objects(place, found, seen)
        elif kind is not Files:
            self._list_members(place, kind, found, seen)
        elif not os.path.isdir(place):
            _add(found, seen, place, absolute(place), split_name(place)[1] or place)
        else:
            self._list_folder(place, found, seen)

    def _list_objects(self, url: str, found: Found, seen: set[str]) -> None:
        """List the images behind a URL, whose names are URLs."""
        folder = os.path.join(url, "") if is_folder(url) else ""
        for member in self._remote.at(url).list().members:
            _add(found, seen, member, member, member.removeprefix(folder))

    def _list_folder(self, place: str, found: Found, seen: set[str]) -> None:
        """List the image files of a folder or, if there is none, what else in it holds images."""
        folder = os.path.join(place, "")
        listing = Files(place).list()
        found.unreadable.extend(listing.unreadable)
        for path in listing.members:
            _add(found, seen, path, absolute(path), path.removeprefix(folder))
        if not listing.members:
            for path in walk(place, [], _holds_images):
                self._list_members(path, _kind_of(path), found, seen, path.removeprefix(folder))

    def _list_members(
        self, place: str, kind: SourceKind, found: Found, seen: set[str], within: str = ""
    ) -> None:
        """List the images that a file holds; `within` is its name in a folder that was given."""
        try:
            listing = self._source(place, kind).list()
        except ImageError as error:
            found.unreadable.append((place, str(error)))
            return
        found.unreadable.extend(listing.unreadable)
        if not listing.members and not listing.unreadable:
            found.unreadable.append((place, "there are no images in it"))
        known = absolute(place)
        for member in listing.members:
            _add(
                found,
                seen,
                member_name(place, member),
                member_name(known, member),
                member_name(within, member) if within else member,
            )

    def is_one_image(self, place: str) -> bool:
        """Return whether a place is a single image file, or nothing, rather than many images."""
        if is_list(place):
            return False
        if is_url(place):
            return not is_folder(place)
        return _kind_of(place) is Files and not os.path.isdir(place)

    def version(self, name: str) -> "FileIdentity | None":
        """Return what tells versions of an image apart; None if nothing does.

        Raises
        ------
        OSError
            There is no such image, or it cannot be reached.
        """
        source, member = self._resolve(name)
        return source.version(member)

    def read(self, name: str) -> ImageData:
        """Return the bytes or the pixels of an image.

        Raises
        ------
        ImageError
            It cannot be read; the message is the reason, without the name.
        """
        source, member = self._resolve(name)
        return source.read(member)

    def sequential(self, name: str) -> bool:
        """Return whether an image's source is read quickly only in order."""
        try:
            return self._resolve(name)[0].sequential
        except ImageError:  # reading it will say why
            return False

    def remote(self, name: str) -> bool:
        """Return whether reading an image waits for a network: many can be read side by side."""
        return is_url(name) and split_given(name) is None

    def size(self, name: str) -> int:
        """Return the bytes of an image behind a URL; a guess if nobody has asked for them yet."""
        return self._remote.size(name)

    def _resolve(self, name: str) -> tuple[Source, str]:
        given = split_given(name)
        if given is not None:
            if name not in self._given:
                raise ImageError("was in the memory of a program that has ended, or of another")
            return self._given[name], given[1]
        place, separator, member = name.partition(MEMBER)
        if separator and place in self._open and not os.path.lexists(name):  # as split_name finds
            return self._source(place), member
        place, within = split_name(name)
        if within is None:
            return (self._remote if is_url(name) else self._files), name
        return self._source(place), within

    def _source(self, place: str, kind: SourceKind | None = None) -> Source:
        """Return the source at a place; the one that was used least recently is closed for it."""
        last, source = self._last
        if last == place and source is not None:
            return source
        oldest = None
        with self._lock:
            source = self._recent.pop(place, None) or self._open.get(place)
            if source is None:
                source = (kind or _kind_of(place))(place, self.options)
                self._open[place] = source
            self._recent[place] = source
            self._last = place, source
            if len(self._recent) > _MOST_OPEN:
                oldest = self._recent.pop(next(iter(self._recent)))
        if oldest is not None:
            oldest.close()
        return source


def name_of(given: Given) -> str:
    """Return what was given as text for messages."""
    return printable(os.fspath(given) if isinstance(given, str | os.PathLike) else given.place)


def _kind_of(place: str) -> SourceKind:
    return next(kind for kind in KINDS if kind.takes(place))


def _holds_images(path: str) -> bool:
    return _kind_of(path) not in (Files, Remote)


def _add(found: Found, seen: set[str], name: str, known: str, within: str) -> None:
    if known not in seen:
        seen.add(known)
        found.names.append(name)
        found.within.append(within)
