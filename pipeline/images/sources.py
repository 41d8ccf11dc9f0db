"""All sources of a command together: find images by what was given, and open them by name."""

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ...cache.errors import UsageError
from ..common.text import printable
from .array_files import ArrayFile
from .decode import ImageError
from .files import Files, is_image_name
from .names import MEMBER, absolute, member_name, split_name
from .source import ImageData, Source, SourceKind, SourceOptions

if TYPE_CHECKING:
    from ...cache.index import FileIdentity

KINDS: tuple[SourceKind, ...] = (ArrayFile, Files)
"""The kinds of sources; the first that takes a place has it."""

Given: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True)
class Found:
    """What a search found, in order.

    Attributes
    ----------
    names
        The images.
    within
        The name of each within what was given: relative to the folder, or behind the ``#``.
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
        self._open: dict[str, Source] = {}
        self._given: dict[str, Source] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def close(self) -> None:
        """Close every source."""
        for source in (*self._open.values(), *self._given.values()):
            source.close()

    def add(self, name: str, source: Source) -> None:
        """Take a source that a program made; its images are ``NAME#MEMBER``."""
        self._given[name] = source

    def find(self, given: Iterable[Given]) -> Found:
        """List the images of folders, files, glob patterns and every other kind of source.

        An image found twice is listed once.

        Raises
        ------
        UsageError
            Something that was given does not exist, or a pattern matches nothing.
        """
        found = Found()
        seen: set[str] = set()
        for one in given:
            for place in _expand(os.fspath(one)):
                self._list(place, found, seen)
        return found

    def _list(self, place: str, found: Found, seen: set[str]) -> None:
        kind = _kind_of(place)
        try:
            listing = self._source(place, kind).list()
        except ImageError as error:
            found.unreadable.append((place, str(error)))
            return
        found.unreadable.extend(listing.unreadable)
        folder = os.path.join(place, "") if os.path.isdir(place) else ""
        for member in listing.members:
            name = member if kind is Files else member_name(place, member)
            known = absolute(name)
            if known not in seen:
                seen.add(known)
                found.names.append(name)
                found.within.append(member.removeprefix(folder))

    def is_one_image(self, place: Given) -> bool:
        """Return whether a place is a single image file, or nothing, rather than many images."""
        return _kind_of(os.fspath(place)) is Files and not os.path.isdir(place)

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
        return self._resolve(name)[0].sequential

    def _resolve(self, name: str) -> tuple[Source, str]:
        place, separator, member = name.partition(MEMBER)
        if separator:  # what is open needs no look at the disk
            source = self._given.get(place) or self._open.get(place)
            if source is not None and not isinstance(source, Files):
                return source, member
        place, within = split_name(name)
        if within is None:
            return self._files, name
        return self._source(place, _kind_of(place)), within

    def _source(self, place: str, kind: SourceKind) -> Source:
        source = self._open.get(place)
        if source is None:
            source = self._open.setdefault(place, kind(place, self.options))
        return source


def _kind_of(place: str) -> SourceKind:
    return next(kind for kind in KINDS if kind.takes(place))


def _expand(given: str) -> list[str]:
    """Return the places that a pattern matches; anything else stands for itself."""
    if os.path.lexists(given):
        return [given]
    if glob.has_magic(given):
        matches = sorted(glob.glob(given, recursive=True))
        if not os.path.splitext(given)[1]:  # without a suffix it is filtered like a folder
            matches = [m for m in matches if is_image_name(m) or os.path.isdir(m)]
        if matches:
            return matches
        raise UsageError(f"no image matches the pattern {printable(given)}")
    raise UsageError(f"no such file or folder: {printable(given)}")
