"""Read where the members of a zip file lie, by the specification (PKWARE's APPNOTE 6.3).

Python's zipfile refuses the whole file for one name that is not the UTF-8 that it claims to be, and
for a missing directory.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from ..source import ImageError
from .open_file import OpenFile

_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END_64, _LOCATOR_64 = b"PK\x06\x06", b"PK\x06\x07"
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_CENTRAL_HEADER = struct.Struct("<4s6H3L5H2L")
_END_RECORD = struct.Struct("<4s4H2LH")
_END_RECORD_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_MOST_COMMENT = 0xFFFF
_USUAL_NAMES = 256  # bytes of a name and an extra field that are read with the member at once
_IN_EXTRA = 0xFFFFFFFF  # the number stands in the extra field, with 64 bits
_ENCRYPTED, _SIZES_BEHIND, _UTF8 = 1, 1 << 3, 1 << 11  # bits of the flags


class ZipEntry(NamedTuple):
    """Where a member lies and how: `stored` bytes behind the local header at `offset`.

    `size` is what they become, `mode` the Unix file mode (0 where there is none).
    """

    offset: int
    stored: int
    size: int
    method: int
    crc: int
    flags: int
    mode: int = 0

    @property
    def encrypted(self) -> bool:
        """Whether a password is needed."""
        return bool(self.flags & _ENCRYPTED)


class Directory(NamedTuple):
    """(name, entry) of all members, in order of storage, and what is lost, or None.

    `cut` is the member in whose middle a file ends that has no directory: its `stored` bytes go to
    the end of the file; `size` and `crc` are what was written before it was done.
    """

    entries: list[tuple[str, ZipEntry]]
    lost: str | None = None
    cut: tuple[str, ZipEntry] | None = None


def read_directory(file: OpenFile) -> Directory:
    """Return the members of a zip file; without its central directory, those of the front.

    Raises
    ------
    ImageError
        It is no zip file.
    """
    found = _central_directory(file)
    if found is None:
        if file.read_at(0, 4) != _LOCAL:
            raise ImageError("not a zip file, or one whose beginning and end are missing")
        return _from_the_front(file)
    data, shift, count = found
    entries: list[tuple[str, ZipEntry]] = []
    with suppress(struct.error, ValueError):  # what follows cannot be found; it is counted below
        for named in _central_entries(data, shift):
            entries.append(named)  # noqa: PERF402 - those before a damaged one are kept
    entries.sort(key=lambda named: named[1].offset)
    lost = None
    if len(entries) < count:
        lost = f"its directory is damaged: {count - len(entries):,} of {count:,} entries are lost"
    return Directory(entries, lost)


def data_start(file: OpenFile, entry: ZipEntry) -> int:
    """Return where the bytes of a member begin; raise `ImageError` if it is not there."""
    header = file.read_at(entry.offset, _LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL):
        raise ImageError("damaged archive: the image is not where the directory says")
    *_, name, extra = _LOCAL_HEADER.unpack(header)
    return entry.offset + _LOCAL_HEADER.size + int(name) + int(extra)


def stored_bytes(file: OpenFile, entry: ZipEntry) -> bytes:
    """Return the bytes of a member as they are stored; raise `ImageError` if they are not there."""
    data = file.read_at(entry.offset, _LOCAL_HEADER.size + _USUAL_NAMES + entry.stored)
    if len(data) < _LOCAL_HEADER.size or not data.startswith(_LOCAL):
        raise ImageError("damaged archive: the image is not where the directory says")
    *_, name, extra = _LOCAL_HEADER.unpack_from(data)
    start = _LOCAL_HEADER.size + int(name) + int(extra)
    stored = data[start : start + entry.stored]
    if len(stored) < entry.stored:  # unusually long names
        stored = file.read_at(entry.offset + start, entry.stored)
    if len(stored) < entry.stored:
        raise ImageError("the archive ends in the middle of the image")
    return stored


def _central_directory(file: OpenFile) -> tuple[bytes, int, int] | None:
    """Return the directory, how far all offsets are shifted, and its count; None: there is none."""
    start = max(0, file.size - _END_RECORD.size - _MOST_COMMENT)
    tail = file.read_at(start, file.size - start)
    place = tail.rfind(_END)
    while place >= 0:
        if place + _END_RECORD.size <= len(tail):
            *_, count, size, offset, _ = _END_RECORD.unpack_from(tail, place)
            end = start + place
            if _IN_EXTRA in (size, offset) or count == 0xFFFF:
                end, count, size, offset = _end_64(file, end) or (end, count, size, offset)
            shift = end - size - offset  # bytes in front, as of a program that unpacks itself
            if shift >= 0 and (not count or file.read_at(end - size, 4) == _CENTRAL):
                return file.read_at(end - size, size), shift, count
        place = tail.rfind(_END, 0, place)
    return None


def _end_64(file: OpenFile, end: int) -> tuple[int, int, int, int] | None:
    """Return place, count, size and offset from the record for large files before the end."""
    at = end - _LOCATOR.size
    locator = file.read_at(at, _LOCATOR.size) if at >= 0 else b""
    if not locator.startswith(_LOCATOR_64):
        return None
    for place in (at - _END_RECORD_64.size, _LOCATOR.unpack(locator)[2]):
        record = file.read_at(place, _END_RECORD_64.size) if place >= 0 else b""
        if record.startswith(_END_64) and len(record) == _END_RECORD_64.size:
            *_, count, size, offset = _END_RECORD_64.unpack(record)
            return place, count, size, offset
    return None


def _central_entries(data: bytes, shift: int) -> Iterator[tuple[str, ZipEntry]]:
    place = 0
    while place < len(data):
        header = _CENTRAL_HEADER.unpack_from(data, place)
        signature, made_by, _, flags, method, _, _, crc, stored, size = header[:10]
        name_length, extra_length, comment_length, _, _, attributes, offset = header[10:]
        if signature != _CENTRAL:
            raise ValueError("no entry where one should be")
        at = place + _CENTRAL_HEADER.size
        name = data[at : at + name_length]
        extra = data[at + name_length : at + name_length + extra_length]
        size, stored, offset = _large(extra, size, stored, offset)
        mode = attributes >> 16 if made_by >> 8 == 3 else 0  # 3: made on Unix
        yield (
            _decoded(name, flags),
            ZipEntry(offset + shift, stored, size, method, crc, flags, mode),
        )
        place = at + name_length + extra_length + comment_length


def _from_the_front(file: OpenFile) -> Directory:
    """Return the members that follow each other from the beginning of a truncated file."""
    entries: list[tuple[str, ZipEntry]] = []
    cut = None
    place, why = 0, "it ends there"
    while cut is None:
        header = file.read_at(place, _LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL):
            break
        _, _, flags, method, _, _, crc, stored, size, named, more = _LOCAL_HEADER.unpack(header)
        text = file.read_at(place + _LOCAL_HEADER.size, named + more)
        try:
            size, stored = _large(text[named:], size, stored)
        except struct.error:
            break
        start = place + _LOCAL_HEADER.size + named + more
        end = start + stored
        behind = file.read_at(end, len(_LOCAL))
        if flags & _SIZES_BEHIND and not stored:
            why = "the next one does not say where it ends"
        elif end <= file.size and (stored or behind in (b"", _LOCAL, _CENTRAL)):
            entry = ZipEntry(place, stored, size, method, crc, flags)
            entries.append((_decoded(text[:named], flags), entry))
            place = end
            continue
        left = max(0, file.size - start)
        cut = _decoded(text[:named], flags), ZipEntry(place, left, size, method, crc, flags)
    return Directory(
        entries,
        f"truncated: the directory at its end is missing; {len(entries):,} members at its "
        f"beginning are read, the others are lost ({why})",
        cut,
    )


def _large(extra: bytes, *numbers: int) -> tuple[int, ...]:
    """Replace the numbers that stand in the extra field for large files (id 1)."""
    if _IN_EXTRA not in numbers:
        return numbers
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, place)
        if kind == 1:
            wide = struct.iter_unpack("<Q", extra[place + 4 : place + 4 + length // 8 * 8])
            return tuple(next(wide, (n,))[0] if n == _IN_EXTRA else n for n in numbers)
        place += 4 + length
    return numbers


def _decoded(name: bytes, flags: int) -> str:
    """Return a name as text: UTF-8 where it is, else the code page of DOS, as specified."""
    if flags & _UTF8:
        return name.decode("utf-8", "surrogateescape")
    try:
        return name.decode("utf-8")  # macOS writes it without saying so
    except UnicodeDecodeError:
        return name.decode("cp437")
