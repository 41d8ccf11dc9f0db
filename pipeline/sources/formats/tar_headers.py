"""Read the headers of a tar file: POSIX ustar and pax, and GNU's long names and large sizes.

Python's tarfile takes five times as long, ends a listing without a word at a damaged header, and
keeps all that it has seen.
"""

import posixpath
import tarfile
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from ..source import ImageError

_BLOCK = tarfile.BLOCKSIZE
_ZEROS = bytes(_BLOCK)
_MOST_EXTENDED = 1 << 20  # bytes of one extended header; names are shorter
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_EXTENDED = (*_LONG, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_SPARSE_BLOCKS = 482, 504  # where a header and its continuation say that one more block follows
_CHECKSUM = slice(148, 156)
_NAMES = slice(0, 100), slice(157, 257), slice(345, 500)  # the name, a link's target, a prefix


class TarReader(Protocol):
    """Reads bytes by place."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes, fewer only where the file ends; `ImageError` if it is damaged."""


class TarHeader(NamedTuple):
    """A member that is no folder: its bytes lie at `offset`.

    `link` is the member that a link stands for, None if it is none; `regular` is False for links,
    devices, and files with holes.
    """

    name: str
    offset: int
    size: int
    regular: bool
    link: str | None


def headers(reader: TarReader) -> Iterator[TarHeader]:
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
        head = _decoded(block, place)
        if head is None:
            return
        start = place + _BLOCK
        if head.type in _EXTENDED:
            records = _extension(reader, head, start)
            if head.type == tarfile.XGLTYPE:
                common |= records
            else:
                extended |= records
            place = start + _padded(head.size)
            continue
        if head.type == tarfile.GNUTYPE_SPARSE:
            start += _more_blocks(reader, block, start)
        header, place = _member(head, common | extended, start)
        extended = {}
        if header is None:
            continue
        if header.size and not reader.read_at(header.offset + header.size - 1, 1):
            raise ImageError(f"truncated in the middle of {header.name}")
        yield header


class _Block(NamedTuple):
    """What one block says: a name, the bytes that follow, the type, and the target of a link."""

    name: str
    size: int
    type: bytes
    link: str


def _decoded(block: bytes, place: int) -> _Block | None:
    """Return what a header says; None for the mark of the end."""
    if block == _ZEROS:
        return None
    if not block:
        raise ImageError("truncated: the mark of its end is missing")
    try:
        size, checksum = _number(block[124:136]), _number(block[_CHECKSUM])
    except ValueError:
        size = checksum = -1
    whole = len(block) == _BLOCK
    if not whole or checksum not in _sums(block):
        if not place:
            raise ImageError("not a tar file")
        if not whole:
            raise ImageError("truncated in the middle of a header")
        raise ImageError(f"damaged: there is no header at byte {place:,}")
    name, link, prefix = (_until_zero(block[part]) for part in _NAMES)
    if prefix and block.startswith(tarfile.POSIX_MAGIC[:6], 257):
        name = f"{prefix}/{name}"
    return _Block(name, size, block[156:157], link)


def _sums(block: bytes) -> Iterator[int]:
    """Yield the sum of a header's bytes, with spaces for its checksum; then that of signed ones."""
    total = sum(block) - sum(block[_CHECKSUM]) + 8 * 32
    yield total
    rest = block[: _CHECKSUM.start] + block[_CHECKSUM.stop :]
    yield total - 256 * sum(byte > 127 for byte in rest)  # as some old programs have it


def _number(field: bytes) -> int:
    """Return an octal number, or one of base 256, which the first bit says."""
    if field[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(field[1:]) - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    return int(field.partition(b"\0")[0].strip() or b"0", 8)


def _until_zero(field: bytes) -> str:
    return _text(field.partition(b"\0")[0])


def _extension(reader: TarReader, head: _Block, start: int) -> dict[str, str]:
    """Return what an extended header says of the next member, as records of pax."""
    if not 0 <= head.size <= _MOST_EXTENDED:
        raise ImageError(f"damaged: an extended header of {head.size:,} bytes at byte {start:,}")
    data = reader.read_at(start, head.size)
    if len(data) < head.size:
        raise ImageError("truncated in the middle of a header")
    if head.type in _LONG:
        return {_LONG[head.type]: _text(data.rstrip(b"\0"))}
    return _records(data, start)


def _member(head: _Block, known: dict[str, str], start: int) -> tuple[TarHeader | None, int]:
    """Return a header, None for a folder, and where the next one lies."""
    name = known.get("GNU.sparse.name", known.get("path", head.name))
    holes = head.type == tarfile.GNUTYPE_SPARSE or any(k.startswith("GNU.sparse") for k in known)
    folder = head.type == tarfile.DIRTYPE or (head.type == tarfile.AREGTYPE and name.endswith("/"))
    regular = head.type in tarfile.REGULAR_TYPES or head.type not in tarfile.SUPPORTED_TYPES
    size = 0
    if regular and not folder:
        told = known.get("size", "")
        size = int(told) if told.isdecimal() and len(told) < 20 else head.size
    if size < 0:
        raise ImageError(f"damaged: {name} has a negative size")
    target = known.get("linkpath", head.link)
    link = None
    if head.type == tarfile.LNKTYPE:
        link = target
    elif head.type == tarfile.SYMTYPE:
        link = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    header = TarHeader(name, start, size, regular and not holes, link)
    return None if folder else header, start + _padded(size)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _more_blocks(reader: TarReader, block: bytes, start: int) -> int:
    """Return how many bytes the map of a sparse file takes behind its header."""
    count, flag = 0, _SPARSE_BLOCKS[0]
    while len(block) == _BLOCK and block[flag]:
        block = reader.read_at(start + count, _BLOCK)
        count, flag = count + _BLOCK, _SPARSE_BLOCKS[1]
    return count


def _records(data: bytes, place: int) -> dict[str, str]:
    """Return the records of a pax header: each is its length, a key and a value."""
    records, begin, end = {}, 0, len(data.rstrip(b"\0"))
    while begin < end:
        space = data.find(b" ", begin, begin + 8)
        digits = data[begin : max(begin, space)]
        stop = begin + int(digits) if digits.isdigit() else 0
        if not begin <= space < stop <= len(data):
            raise ImageError(f"damaged: the extended header at byte {place:,} cannot be read")
        key, _, value = data[space + 1 : stop - 1].partition(b"=")
        records[_text(key)] = _text(value)
        begin = stop
    return records


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
