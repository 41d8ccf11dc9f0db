"""Objects behind URLs, through fsspec: list, read, write; requests are repeated when it helps."""

import os
import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ....cache.errors import LpipstoreError, UsageError
from ...common.optional import not_installed
from ...common.text import printable
from ..names import has_password, is_web, without_password
from .object_identity import Info, identity_of
from .remote_errors import Cause, cause_of

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from ....cache.index import FileIdentity

REQUESTS = 32
"""Requests that are worth having on their way at the same time."""

_PAUSES = (0.2, 0.5, 1.2, 3.0)  # seconds before another attempt, up to twice as long by chance
_PATIENCE = 20.0  # seconds after which nothing is tried again; S3 clients also try by themselves
_GIVE_UP = 8  # objects that fail one after another before a server is taken for dead

_LIKELY_BYTES = 2_000_000

_WITH_EXTRA = frozenset(("http", "https", "s3", "s3a"))
_DISKS = frozenset(("file", "local"))

Answer = TypeVar("Answer")


class Unreachable(OSError):  # noqa: N818 - named for the condition
    """A request failed for good; ``strerror`` is the reason, without the URL."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(0, cause.reason)
        self.cause = cause


class Objects:
    """Objects behind URLs. Threads may share it; a copy in another process connects by itself.

    What has been listed is not asked for again, so that an instance should live no longer than a
    command.

    Raises
    ------
    UsageError
        From every method: the package for a protocol is not installed, or a URL has a password.
    LpipstoreError
        From every method: a server has failed too often in a row.
    Unreachable
        From every method: a request failed, if it helps after several attempts.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._systems: dict[str, AbstractFileSystem] = {}
        self._known: dict[str, FileIdentity | None] = {}
        self._failures: dict[str, int] = {}
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._reset()

    def close(self) -> None:
        """Forget connections; their sessions are closed when the last request has ended."""
        self._reset()

    def find(self, url: str) -> dict[str, Info]:
        """Return what lies below a URL: the path of each object within it, and what is told of it.

        An object by itself has the path "".
        """
        system, path = self._at(url)
        found = self._persist(url, lambda: system.find(path, detail=True))
        return self._within(path, found)

    def glob(self, base: str, pattern: str) -> dict[str, Info]:
        """Return what matches a pattern below `base`, as `find` does; folders may be among it."""
        system, path = self._at(base)
        _, whole = self._at(base + pattern)
        found = self._persist(base, lambda: system.glob(whole, detail=True))
        return self._within(path, found)

    @staticmethod
    def _within(path: str, found: Mapping[str, Info]) -> dict[str, Info]:
        folder = path.rstrip("/") + "/"
        return {
            "" if name.rstrip("/") == path.rstrip("/") else name.removeprefix(folder): info
            for name, info in found.items()
        }

    def learn(self, listed: Iterable[tuple[str, Info]]) -> None:
        """Keep what a listing told of objects, by their URLs."""
        now = time.time_ns()
        for url, info in listed:
            identity = identity_of(url, info, now)
            if identity is not None:
                self._known[url] = identity

    def identity(self, url: str) -> "FileIdentity | None":
        """Return what tells versions of an object apart; ask for it unless it was listed."""
        if url not in self._known:
            system, path = self._at(url)
            info = self._persist(url, lambda: system.info(path))
            if info.get("type") == "directory":
                raise Unreachable(Cause("it is a folder"))
            self._known[url] = None
            self.learn([(url, info)])
        return self._known[url]

    def size(self, url: str) -> int:
        """Return the bytes of an object; a guess if they are not known. Nothing is asked for."""
        identity = self._known.get(url)
        return _LIKELY_BYTES if identity is None else identity.size

    def read(self, url: str) -> bytes:
        """Return the bytes of an object."""
        system, path = self._at(url)
        return bytes(self._persist(url, lambda: system.cat_file(path)))

    def read_range(self, url: str, start: int, size: int) -> bytes:
        """Return `size` bytes of an object from `start` on; fewer where it ends."""
        system, path = self._at(url)
        end = start + size
        return bytes(self._persist(url, lambda: system.cat_file(path, start=start, end=end)))

    def write(self, url: str, data: bytes) -> None:
        """Write an object, whole or not at all; one that is there is replaced."""
        system, path = self._at(url)
        if url.partition("://")[0] in _DISKS:  # where a file can be seen before it is whole
            scratch = f"{path}.{secrets.token_hex(8)}.partial"
            self._persist(url, lambda: system.pipe_file(scratch, data))
            self._persist(url, lambda: os.replace(scratch, path))
        else:
            self._persist(url, lambda: system.pipe_file(path, data))

    def upload(self, file: str, url: str) -> None:
        """Write an object from a file, in parts if it is large, whole or not at all."""
        system, path = self._at(url)
        if url.partition("://")[0] in _DISKS:
            scratch = f"{path}.{secrets.token_hex(8)}.partial"
            self._persist(url, lambda: system.put_file(file, scratch))
            self._persist(url, lambda: os.replace(scratch, path))
        else:
            self._persist(url, lambda: system.put_file(file, path))

    def remove(self, url: str) -> None:
        """Remove an object."""
        system, path = self._at(url)
        self._persist(url, lambda: system.rm_file(path))

    def _at(self, url: str) -> "tuple[AbstractFileSystem, str]":
        """Return the file system of a URL, and the URL as a path in it."""
        refuse_password(url)
        kind = _kind_of(url)
        options = kind._get_kwargs_from_urls(url)
        key = f"{url.partition('://')[0]} {sorted(options.items())}"
        with self._lock:
            if key not in self._systems:
                # Not from fsspec's cache: what was listed for an earlier command may have changed
                options |= {"use_listings_cache": False, "skip_instance_cache": True}
                self._systems[key] = kind(**options, **_client_options(url))
            return self._systems[key], kind._strip_protocol(url)

    def _persist(self, url: str, request: Callable[[], Answer]) -> Answer:
        """Make a request, again if it failed for a cause that may pass."""
        parts = urlsplit(url)
        server = f"{parts.scheme}://{parts.netloc}"
        end = time.monotonic() + _PATIENCE
        for pause in (*_PAUSES, None):
            if self._failures.get(server, 0) >= _GIVE_UP:
                raise LpipstoreError(
                    f"{printable(server)} failed {_GIVE_UP} times in a row, after several attempts "
                    "each: when it answers again, the same command goes on"
                )
            try:
                answer = request()
            except Exception as error:
                cause = cause_of(error)
                if not cause.passing or pause is None or time.monotonic() > end:
                    self._count(server, cause)
                    raise Unreachable(cause) from error
            else:
                self._failures.pop(server, None)
                return answer
            time.sleep(pause * (1 + random.random()))  # noqa: S311 - spreads attempts, no secret
        raise AssertionError("the last attempt returns or raises")

    def _count(self, server: str, cause: Cause) -> None:
        with self._lock:
            if cause.passing:
                self._failures[server] = self._failures.get(server, 0) + 1
            else:  # it answers
                self._failures.pop(server, None)


def refuse_password(url: str) -> None:
    """Raise `UsageError` if a URL holds a password: names are kept in results and shown."""
    if has_password(url):
        raise UsageError(
            f"{printable(without_password(url))} has a password in it, which would stay in "
            "results: give credentials as fsspec takes them, by environment variables or files"
        )


def _kind_of(url: str) -> "type[AbstractFileSystem]":
    """Return fsspec's class for a URL; raise `UsageError` that says what to install."""
    protocol, shown = url.partition("://")[0], printable(without_password(url))
    try:
        import fsspec

        kind: type[AbstractFileSystem] = fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        if protocol in _WITH_EXTRA or error.name == "fsspec":
            raise not_installed(f"{shown} needs a package", "lpipstore[remote]", error) from error
        # fsspec says what it needs for other protocols
        raise UsageError(f"{shown} needs a package, which is not installed: {error}") from error
    except ValueError as error:
        raise UsageError(f"{shown}: fsspec opens no URLs of the kind {protocol}://") from error
    return kind


def _client_options(url: str) -> dict[str, Any]:
    """Return options of a file system that let it make many requests, and end those that hang.

    What the user has configured for fsspec stays.
    """
    from fsspec.config import conf

    protocol = url.partition("://")[0]
    if protocol in ("s3", "s3a"):
        own = dict(conf.get("s3", {}).get("config_kwargs", {}))
        # A single request for an object: more would ask for its size first
        return {"max_concurrency": 1, "config_kwargs": {"max_pool_connections": REQUESTS, **own}}
    if protocol in _DISKS:
        return {"auto_mkdir": True}
    if is_web(url):
        import aiohttp

        own = dict(conf.get(protocol, {}).get("client_kwargs", {}))
        timeout = aiohttp.ClientTimeout(total=600, sock_connect=10, sock_read=30)
        return {"client_kwargs": {"timeout": timeout, **own}}
    return {}
