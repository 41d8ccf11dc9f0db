"""Images behind URLs that fsspec opens: ``s3://``, ``https://``, ``gs://``, ``hf://`` and more."""

import os
from collections.abc import Iterable
from glob import has_magic
from typing import TYPE_CHECKING, TypeAlias

from ....cache.errors import LpipstoreError, UsageError
from ...common.text import printable
from ..formats.object_identity import Info
from ..formats.objects import Objects, Unreachable, refuse_password
from ..names import CONTAINER_SUFFIXES, is_image_name, is_url, is_web, url_path
from ..source import ImageError, Listing, SourceOptions

if TYPE_CHECKING:
    from ....cache.index import FileIdentity


Members: TypeAlias = list[str]


class Remote:
    """A folder or prefix with all below it, a glob pattern, or one object; members are URLs.

    Below a folder, images are found as `lpipstore.pipeline.sources.kinds.files` finds them, in the
    same order. A URL is a single object if it ends like an image; with ``http://`` and
    ``https://``, whatever does not end with a slash is.

    Reading waits for a network: many threads should read at the same time, `REQUESTS` of
    `lpipstore.pipeline.sources.formats.objects`. The version of an object is its ETag, size and
    time of change. A URL may have a query string, such as a signature: it is part of the name.

    Parameters
    ----------
    place
        A URL; "" for a source that only opens single objects.
    objects
        What makes the requests; None connects anew.
    """

    sequential = False

    def __init__(
        self, place: str, options: SourceOptions | None = None, objects: Objects | None = None
    ) -> None:
        self.place = place
        self._objects = objects or Objects()

    @staticmethod
    def takes(place: str) -> bool:
        """Return whether a place is a URL."""
        return is_url(place)

    def at(self, place: str) -> "Remote":
        """Return the source at another place, with the same connections."""
        return Remote(place, objects=self._objects)

    def list(self) -> Listing:
        """List the images; the objects of a listing are not asked for their versions again.

        Raises
        ------
        UsageError
            Nothing is there, or it is an archive or the like, which have to lie on a disk.
        LpipstoreError
            It cannot be listed.
        """
        refuse_password(self.place)
        pattern = pattern_in(self.place)
        try:
            if is_one_object(self.place) and not (pattern and not self._is_there(pattern)):
                _refuse_container(self.place)
                return Listing([self.place])
            members = self._matches(pattern) if pattern else self._below(self.place)
        except Unreachable as error:
            shown = printable(self.place)
            if error.cause.missing:
                raise UsageError(f"{shown} is not there: {error.strerror}") from error
            raise LpipstoreError(f"{shown} cannot be listed: {error.strerror}") from error
        return Listing(members)

    def version(self, member: str) -> "FileIdentity | None":
        """Return URL, size, time of change and a hash of the ETag."""
        return self._objects.identity(member)

    def size(self, member: str) -> int:
        """Return the bytes of an object; a guess if its version is not known yet."""
        return self._objects.size(member)

    def read(self, member: str) -> bytes:
        """Read an object; failures that may pass are tried again."""
        try:
            return self._objects.read(member)
        except Unreachable as error:
            raise ImageError(f"cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Close the connections."""
        self._objects.close()

    def _is_there(self, pattern: str) -> bool:
        """Return whether an object has the wildcards in its name: ``a[1].png``."""
        if "*" in pattern:
            return False
        try:
            return self._objects.identity(self.place) is not None
        except Unreachable as error:
            if error.cause.missing:
                return False
            raise

    def _below(self, folder: str) -> Members:
        """Return the images below a folder, in order; an object by itself is taken as it is."""
        found = self._objects.find(folder)
        if not found:
            raise UsageError(f"no such file or folder: {printable(folder)}")
        if [*found] == [""] and not folder.endswith("/"):
            _refuse_container(folder)
            self._objects.learn([(folder, found[""])])
            return [folder]
        base = folder if folder.endswith("/") else folder + "/"
        return self._learned(base, sorted((p for p in found if _is_image(p)), key=_walked), found)

    def _matches(self, pattern: str) -> Members:
        """Return the images that match the pattern, with those in folders that do."""
        base = self.place.removesuffix(pattern)
        found = self._objects.glob(base, pattern)
        any_name = os.path.splitext(pattern)[1]  # without a suffix it is filtered like a folder
        members: list[str] = []
        for path, info in sorted(found.items()):
            if _is_hidden(path):
                continue
            if info.get("type") == "directory":
                if not any_name:
                    members += self._below(base + path)
            elif any_name or is_image_name(path):
                members += self._learned(base, [path], found)
        if not members:
            raise UsageError(f"no image matches the pattern {printable(self.place)}")
        return [*dict.fromkeys(members)]

    def _learned(self, base: str, paths: Iterable[str], found: dict[str, Info]) -> Members:
        names = {base + path: found[path] for path in paths}
        self._objects.learn(names.items())
        return [*names]


def is_one_object(url: str) -> bool:
    """Return whether a URL looks like a single object, rather than a folder."""
    path = url_path(url)
    by_name = is_image_name(path) or path.lower().endswith(CONTAINER_SUFFIXES)
    return not path.endswith("/") and (by_name or is_web(url))


def is_folder(url: str) -> bool:
    """Return whether a URL looks like a folder, rather than a single object or a pattern."""
    return not is_one_object(url) and not pattern_in(url)


def pattern_in(url: str) -> str:
    """Return the part of a URL from the first folder on whose name has a wildcard; "" if none has.

    A question mark begins the query of a web address.
    """
    scheme, _, rest = url_path(url).partition("://")
    parts = rest.split("/")
    first = next((n for n, part in enumerate(parts) if n and has_magic(part)), len(parts))
    return "/".join(parts[first:]) + url.removeprefix(f"{scheme}://{rest}") * (first < len(parts))


def _refuse_container(url: str) -> None:
    if url_path(url).lower().endswith(CONTAINER_SUFFIXES):
        raise UsageError(
            f"{printable(url)} holds images, and such files are read only from a disk: download it "
            "first"
        )


def _is_image(path: str) -> bool:
    return is_image_name(path) and not _is_hidden(path)


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _walked(path: str) -> list[tuple[bool, str]]:
    """Return a key that sorts like a walk: the files of a folder come before its subfolders."""
    *folders, name = path.split("/")
    return [*((True, folder) for folder in folders), (False, name)]
