"""Tar files, compressed or not, as sources of images, read without unpacking."""

import bz2
import gzip
import io
import lzma
import threading
import zlib
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, NamedTuple, TypeAlias

from ..formats.open_file import BufferedReads, OpenFile
from ..formats.tar_headers import TarReader, headers
from ..source import ImageError, SourceOptions
from .archive import Archive, ArchiveContents, is_archive, is_wanted, plain_name

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Opener: TypeAlias = Callable[[IO[bytes]], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]

_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_OPENERS: dict[bytes, Opener] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
"""How each kind of compression is read, by what the file begins with."""

_AT_ONCE = 1 << 20


class TarEntry(NamedTuple):
    """Where the bytes of a member lie in the archive, once decompressed."""

    offset: int
    size: int


class TarArchive(Archive[TarEntry]):
    """The images in a tar file, such as a shard of a WebDataset, in order of storage.

    Threads read any member of a plain archive at any time. A compressed one is one stream: it is
    read forward, and from its beginning again for a member behind. Links to members are followed,
    others are not.
    """

    @staticmethod
    def takes(place: str) -> bool:
        """Return whether a path ends like that of a tar file."""
        return is_archive(place, _SUFFIXES)

    def __init__(self, place: str, options: SourceOptions | None = None) -> None:
        super().__init__(place, options)
        self._opener: Opener | None = None
        self._stream: _Stream | None = None
        self._stream_lock = threading.Lock()

    @property
    def sequential(self) -> bool:
        """Whether the archive is compressed, whatever its suffix says."""
        try:
            self._opened()
        except ImageError:
            return False  # nothing will be read
        return self._opener is not None

    def close(self) -> None:
        """Close the file and the stream."""
        super().close()
        with self._stream_lock:
            self._stream = None

    def _index(self, file: OpenFile) -> ArchiveContents[TarEntry]:
        opener = self._opener = _opener(file)
        if opener is None:
            return _list_members(BufferedReads(file))
        stream = _Stream(file, opener)
        contents = _list_members(stream)
        if all(name for name, _ in contents.unreadable):  # else it has been damaged before
            try:
                stream.read_on()
            except ImageError as error:
                contents.unreadable.append(("", f"{error}; images in it may be wrong"))
        return contents

    def _extract(self, file: OpenFile, entry: TarEntry) -> bytes:
        opener = self._opener
        if opener is None:
            data = file.read_at(*entry)
        else:
            with self._stream_lock:
                data = self._read_forward(file, opener, entry)
        if len(data) < entry.size:
            raise ImageError("the archive ends in the middle of the image")
        return data

    def _read_forward(self, file: OpenFile, opener: Opener, entry: TarEntry) -> bytes:
        stream = self._stream
        if stream is None or not stream.reaches(entry.offset):
            stream = _Stream(file, opener)
        self._stream = None  # if this fails, the next read begins anew
        data = stream.read_at(*entry)
        self._stream = stream
        return data


class _Positioned(io.RawIOBase):
    """A file read from its beginning on, whatever others read of it."""

    def __init__(self, file: OpenFile) -> None:
        self._file, self._place = file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill a buffer as far as the file goes."""
        view = memoryview(buffer)
        data = self._file.read_at(self._place, len(view))
        view[: len(data)] = data
        self._place += len(data)
        return len(data)


class _Stream:
    """A decompressed file that is read forward; the last piece read is kept, for links to it."""

    def __init__(self, file: OpenFile, opener: Opener) -> None:
        self._file = file  # which closes when nothing refers to it
        self._stream = opener(io.BufferedReader(_Positioned(file), _AT_ONCE))
        self._place = 0
        self._last = 0, b""

    def reaches(self, offset: int) -> bool:
        """Return whether a place can be read without beginning anew."""
        return offset >= self._place or offset == self._last[0]

    def read_at(self, offset: int, size: int) -> bytes:
        """Read on from a place that `reaches` allows; see `TarReader`."""
        if (offset, size) == (self._last[0], len(self._last[1])):
            return self._last[1]
        while self._place < offset:
            if not self._next(min(_AT_ONCE, offset - self._place)):
                return b""
        data = self._next(size)
        self._last = offset, data
        return data

    def read_on(self) -> None:
        """Read to the end, where checksums stand; raise `ImageError` if they are wrong."""
        while self._next(_AT_ONCE):
            pass

    def _next(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except EOFError as error:
            raise ImageError("truncated: the compressed stream ends early") from error
        except (zlib.error, lzma.LZMAError, OSError) as error:
            raise ImageError(f"damaged: {error}") from error
        self._place += len(data)
        return data


def _opener(file: OpenFile) -> Opener | None:
    """Return what decompresses a file; None for a plain one."""
    start = file.read_at(0, 8)
    return next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)


def _list_members(reader: TarReader) -> ArchiveContents[TarEntry]:
    """List the images up to the end, or to where the archive is damaged."""
    contents: ArchiveContents[TarEntry] = ArchiveContents()
    links: dict[str, str] = {}
    begun = False
    try:
        for header in headers(reader):
            begun = True
            name = plain_name(header.name)
            if not is_wanted(name):
                continue
            if header.link is not None:
                links[name] = plain_name(header.link)
            elif header.regular:
                contents.add(name, TarEntry(header.offset, header.size))
            else:
                contents.unreadable.append((name, "neither a regular file nor a link to one"))
    except ImageError as error:
        if not begun:
            raise
        count = len(contents.members)
        lost = f"{error}; the {count:,} images before that are read, what follows is lost"
        contents.unreadable.append(("", lost))
    return _with_links(contents, links)


def _with_links(
    contents: ArchiveContents[TarEntry], links: dict[str, str]
) -> ArchiveContents[TarEntry]:
    """Add each link to another image behind that image; name the others."""
    if not links:
        return contents
    for name, direct in links.items():
        target, seen = direct, {name}
        while target in links and target not in seen:
            seen.add(target)
            target = links[target]
        entry = contents.members.get(target)
        if entry is None:
            contents.unreadable.append((name, f"a link to {target}, which is no image in it"))
        else:
            contents.add(name, entry)
    contents.members = dict(sorted(contents.members.items(), key=lambda item: item[1].offset))
    return contents
