"""What tells versions of an object apart, from what fsspec tells of it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import xxhash

from ..names import is_web

if TYPE_CHECKING:
    from ....cache.index import FileIdentity

_TAGS = ("ETag", "etag", "Content-MD5", "md5Hash", "sha", "blob_id")
_TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "modified")
_MADE = "created"  # the time of change where files are never changed in place
_NEVER_RACY = (1 << 63) - 1

Info = Mapping[str, Any]
"""What fsspec tells of an object: ``name``, ``size``, ``type`` and more."""


def tag_of(info: Info) -> str:
    """Return a text that is another one when the content is: ETag, checksum or time of change.

    Empty if the storage tells none of them.
    """
    return next((str(info[name]) for name in (*_TAGS, *_TIMES, _MADE) if info.get(name)), "")


def identity_of(url: str, info: Info, now: int) -> "FileIdentity | None":
    """Return what tells versions of an object apart: size, and ETag or time of change or both.

    `now` is the time in nanoseconds at which `info` was asked for. Without a size, or with neither
    tag nor time, returns None.
    """
    from ....cache.index import FileIdentity

    size = info.get("size")
    tag = next((str(info[name]) for name in _TAGS if info.get(name)), "")
    changed = _nanoseconds(next((info[name] for name in (*_TIMES, _MADE) if info.get(name)), None))
    if not isinstance(size, int) or not (tag or changed):
        return None
    if tag:  # listings tell the time more precisely than answers about one object do
        changed -= changed % 1_000_000_000
    # Shifted, because SQLite's integers have a sign
    inode = xxhash.xxh3_64_intdigest(tag.encode()) >> 1 if tag else 0
    # A web server may make its ETags from the time; a store of objects, from the content
    exact = tag and not is_web(url)
    return FileIdentity(url.encode(), size, changed, inode, _NEVER_RACY if exact else now)


def _nanoseconds(moment: object) -> int:
    """Return a time as nanoseconds since 1970, to the microsecond; 0 in an unknown notation."""
    if isinstance(moment, str):
        moment = _read_time(moment)
    if isinstance(moment, datetime):
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        moment = aware.timestamp()
    return round(moment * 1e6) * 1000 if isinstance(moment, int | float) else 0


def _read_time(text: str) -> datetime | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            return read(text)
        except ValueError:
            continue
    return None
