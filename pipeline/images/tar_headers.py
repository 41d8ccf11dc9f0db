"""Read the headers of a tar file: POSIX ustar and pax, and GNU's long names and large sizes.

Python's tarfile decodes each header. It is not asked for more, because it ends a listing without a
word at a damaged header, and keeps all that it has seen.
"""

import posixpath
import tarfile
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from .decode import ImageError

_BLOCK = tarfile.BLOCKSIZE
_MOST_EXTENDED = 1 << 20  # bytes of one extended header; names are shorter
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_EXTENDED = (*_LONG, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_SPARSE_BLOCKS = 482, 504  # where a header and its continuation say that one more block follows


class Reader(Protocol):
    """Reads bytes by place."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes, fewer only where the file ends; `ImageError` if it is damaged."""


class Header(NamedTuple):
    """A member that is no folder: its bytes lie at `offset`.

    `link` is the member that a link stands for, None if it is none; `regular` is False for links,
    devices, and files with holes.
    """

    name: str
    offset: int
    size: int
    regular: bool
    link: str | None


def headers(reader: Reader) -> Iterator[Header]:
    """Yield the members in order of storage, each once all of its bytes are known to be there.

    Raises
    ------
    ImageError
        The file is no tar file, or damaged, or ends without the mark of its end.
    """
    place = 0
    extended: dict[str, str] = {}
    common: dict[str, str] = {}
    while True:
        block = reader.read_at(place, _BLOCK)
        info = _decoded(block, place)
        if info is None:
            return
        start = place + _BLOCK
        if info.type in _EXTENDED:
            records = _extension(reader, info, start)
            if info.type == tarfile.XGLTYPE:
                common |= records
            else:
                extended |= records
            place = start + _padded(info.size)
            continue
        if info.type == tarfile.GNUTYPE_SPARSE:
            start += _more_blocks(reader, block, start)
        header, place = _member(info, common | extended, start)
        extended = {}
        if header is None:
            continue
        if header.size and not reader.read_at(header.offset + header.size - 1, 1):
            raise ImageError(f"truncated in the middle of {header.name}")
        yield header


def _decoded(block: bytes, place: int) -> tarfile.TarInfo | None:
    """Return what a header says; None for the mark of the end."""
    if not block:
        raise ImageError("truncated: the mark of its end is missing")
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if not place and any(block):
            raise ImageError("not a tar file") from error
        if len(block) < _BLOCK:
            raise ImageError("truncated in the middle of a header") from error
        if any(block):
            raise ImageError(f"damaged: there is no header at byte {place:,}") from error
        return None


def _extension(reader: Reader, info: tarfile.TarInfo, start: int) -> dict[str, str]:
    """Return what an extended header says of the next member, as records of pax."""
    if not 0 <= info.size <= _MOST_EXTENDED:
        raise ImageError(f"damaged: an extended header of {info.size:,} bytes at byte {start:,}")
    data = reader.read_at(start, info.size)
    if len(data) < info.size:
        raise ImageError("truncated in the middle of a header")
    if info.type in _LONG:
        return {_LONG[info.type]: _text(data.rstrip(b"\0"))}
    return _records(data, start)


def _member(info: tarfile.TarInfo, known: dict[str, str], start: int) -> tuple[Header | None, int]:
    """Return a header, None for a folder, and where the next one lies."""
    name = known.get("GNU.sparse.name", known.get("path", info.name))
    holes = info.type == tarfile.GNUTYPE_SPARSE or any(k.startswith("GNU.sparse") for k in known)
    with_bytes = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
    size = 0
    if with_bytes:
        size = int(known["size"]) if known.get("size", "").isdecimal() else info.size
    if size < 0:
        raise ImageError(f"damaged: {name} has a negative size")
    target = known.get("linkpath", info.linkname)
    link = None
    if info.islnk():
        link = target
    elif info.issym():
        link = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    header = Header(name, start, size, with_bytes and not holes, link)
    return None if info.isdir() else header, start + _padded(size)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _more_blocks(reader: Reader, block: bytes, start: int) -> int:
    """Return how many bytes the map of a sparse file takes behind its header."""
    count, flag = 0, _SPARSE_BLOCKS[0]
    while len(block) == _BLOCK and block[flag]:
        block = reader.read_at(start + count, _BLOCK)
        count, flag = count + _BLOCK, _SPARSE_BLOCKS[1]
    return count


def _records(data: bytes, place: int) -> dict[str, str]:
    """Return the records of a pax header: each is its length, a key and a value."""
    records = {}
    while data.strip(b"\0"):
        digits, _, _ = data.partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        if not len(digits) + 1 < length <= len(data):
            raise ImageError(f"damaged: the extended header at byte {place:,} cannot be read")
        key, _, value = data[len(digits) + 1 : length - 1].partition(b"=")
        records[_text(key)] = _text(value)
        data = data[length:]
    return records


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
