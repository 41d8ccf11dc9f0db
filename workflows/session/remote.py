"""A remote folder of rows behind a URL that fsspec opens: ``s3://``, ``gs://``, ``file://``."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from ...cache.errors import UsageError
from ...cache.exchange.catalogue import need_catalogue, read_catalogue
from ...cache.exchange.fetch import Fetcher
from ...cache.exchange.folder import Listed, RemoteError
from ...cache.exchange.kept import KeptCatalogues
from ...pipeline.common.text import printable
from ...pipeline.sources.formats.object_identity import tag_of
from ...pipeline.sources.formats.objects import Objects, Unreachable, refuse_password
from ...pipeline.sources.names import is_url, is_web
from .screen import Screen
from .settings import cache_folder


class UrlFolder:
    """The objects below a URL; see `lpipstore.cache.exchange.folder.RemoteFolder`.

    Parameters
    ----------
    url
        Such as ``s3://bucket/folder``; credentials come from where fsspec takes them.
    objects
        What makes the requests.

    Raises
    ------
    UsageError
        It is no URL, it has a password, or the package for its protocol is not installed.
    """

    def __init__(self, url: str, objects: Objects) -> None:
        self.url = check_url(url)
        self._objects = objects

    @property
    def place(self) -> str:
        """The URL, as it may be printed."""
        return printable(self.url)

    def list(self, prefix: str = "") -> Mapping[str, Listed]:
        """Return bytes and tag of each object below a prefix."""
        try:
            found = self._objects.find(f"{self.url}/{prefix}".rstrip("/"))
        except Unreachable as error:
            if error.cause.gone:
                return {}
            raise self._error("cannot be listed", "", error) from error
        return {
            prefix + path: Listed(int(info.get("size") or 0), tag_of(info))
            for path, info in found.items()
            if path
        }

    def read(self, name: str) -> bytes | None:
        """Return an object; None if there is none."""
        try:
            return self._objects.read(f"{self.url}/{name}")
        except Unreachable as error:
            if error.cause.gone:
                return None
            raise self._error("cannot be read", name, error) from error

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """Return a part of an object; less where it ends or is not there."""
        try:
            return self._objects.read_range(f"{self.url}/{name}", start, size)
        except Unreachable as error:
            if error.cause.gone:
                return b""
            raise self._error("cannot be read", name, error) from error

    def write(self, name: str, data: bytes) -> None:
        """Write an object, whole or not at all."""
        try:
            self._objects.write(f"{self.url}/{name}", data)
        except Unreachable as error:
            raise self._error("cannot be written", name, error) from error

    def upload(self, name: str, file: Path) -> None:
        """Write an object from a file of any size, whole or not at all."""
        try:
            self._objects.upload(str(file), f"{self.url}/{name}")
        except Unreachable as error:
            raise self._error("cannot be written", name, error) from error

    def remove(self, name: str) -> None:
        """Remove an object."""
        try:
            self._objects.remove(f"{self.url}/{name}")
        except Unreachable as error:
            if not error.cause.gone:
                raise self._error("cannot be removed", name, error) from error

    def _error(self, what: str, name: str, error: Unreachable) -> RemoteError:
        place = f"{self.place}/{name}" if name else self.place
        return RemoteError(f"{place} {what}: {error.strerror}")


def check_url(url: str) -> str:
    """Return the URL of a remote folder without slashes at its end.

    Raises
    ------
    UsageError
        It is no URL, or one that cannot be written to, or has a password in it.
    """
    if not is_url(url) or is_web(url):
        raise UsageError(
            f"a remote store is at a URL such as s3://bucket/folder, gs://bucket/folder or "
            f"file:///folder, not at {printable(url)!r}"
        )
    refuse_password(url)
    return url.rstrip("/")


@contextmanager
def open_folder(url: str) -> Iterator[UrlFolder]:
    """Open the folder behind a URL; the connections are closed after the ``with`` block."""
    with closing(Objects()) as objects:
        yield UrlFolder(url, objects)


def kept_catalogues(screen: Screen) -> KeptCatalogues:
    """Return the catalogues that this machine keeps, so that they are fetched once."""
    return KeptCatalogues(cache_folder() / "catalogues", screen.warn)


@contextmanager
def open_remote(url: str | None, screen: Screen) -> Iterator[Fetcher | None]:
    """Read the catalogue of the remote folder that the settings name; None if they name none.

    Raises
    ------
    LpipstoreError
        The folder cannot be read, or has no catalogue.
    """
    if url is None:
        yield None
        return
    with open_folder(url) as folder:
        catalogue = read_catalogue(folder, screen.warn, kept_catalogues(screen))
        need_catalogue(folder, catalogue)
        yield Fetcher(folder, catalogue, screen.warn)
