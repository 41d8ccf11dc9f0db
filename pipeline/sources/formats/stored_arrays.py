"""Arrays in .npy and .npz files, read part by part: none is loaded whole, none is unpickled.

Formats: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html and, for the zip
around an .npz, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT.
"""

import io
import math
import os
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..source import ImageError
from .stored_bytes import MOST_DEFLATED, Data, Deflated, Plain

_LONGEST_HEADER = 1 << 16
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_LOCAL = struct.Struct("<4sHHHHHIIIHH")  # the header in front of each member of a zip
_LOCAL_MAGIC = b"PK\x03\x04"
_BIG = 0xFFFFFFFF  # stands for a size that is in the zip64 field
_ENCRYPTED, _SIZES_BEHIND = 0x1, 0x8  # flags of a member
_BLOCK = 64 << 20  # bytes of an array in Fortran order that are held
_SPAN = 1 << 16  # bytes of it that are read at once, at least


@dataclass(frozen=True)
class StoredArray:
    """An array in a file; its elements begin at byte `start` of `data`."""

    data: Data
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


class Rows:
    """An array in parts along its first axis. Threads may share it.

    Attributes
    ----------
    count, whole
        The number of parts, and of those that lie in the file from beginning to end.
    sequential
        Whether parts are read quickly only in order.
    """

    def __init__(self, array: StoredArray) -> None:
        self.count, *shape = array.shape
        self.sequential = array.data.sequential
        self._array = array
        self._shape = tuple(shape)
        self._bytes = math.prod(shape) * array.dtype.itemsize
        self.whole = min(self.count, max(0, array.data.length - array.start) // self._bytes)

    def read(self, number: int) -> NDArray[Any]:
        """Return one part.

        Raises
        ------
        ImageError
            The file is damaged.
        OSError
            It cannot be read.
        """
        self._array.data.verify()
        part = np.empty(self._shape, self._array.dtype)
        room = part.reshape(-1).view(np.uint8).data
        self._array.data.read_into(self._array.start + number * self._bytes, room)
        return part


class FortranRows(Rows):
    """An array in Fortran order, in which each part lies all over the file: read in blocks."""

    def __init__(self, array: StoredArray) -> None:
        super().__init__(array)
        self.whole = self.count if self.whole == self.count else 0
        self.sequential = True
        self._each = max(1, min(self.count, _BLOCK // self._bytes))
        self._first = -1  # of the parts in the block
        self._block = np.empty(0, array.dtype)
        self._lock = Lock()

    def read(self, number: int) -> NDArray[Any]:
        """Return one part; see `Rows.read`."""
        with self._lock:
            first = number - number % self._each
            if first != self._first:
                self._array.data.verify()
                self._first = -1
                self._block = self._read_block(first)
                self._first = first
            return self._block[..., number - first].T.copy()

    def _read_block(self, first: int) -> NDArray[Any]:
        """Return parts as an array whose last axis counts them; the others are in reverse."""
        array = self._array
        count = min(self._each, self.count - first)
        lines = math.prod(self._shape)
        size = array.dtype.itemsize
        block = np.empty((lines, count), array.dtype)
        at_once = max(1, _SPAN // (self.count * size))
        columns = slice(0, self.count) if at_once > 1 else slice(first, first + count)
        wanted = slice(first - columns.start, first - columns.start + count)
        room = np.empty((at_once, columns.stop - columns.start), array.dtype)
        for line in range(0, lines, at_once):
            some = room[: lines - line]
            start = array.start + (line * self.count + columns.start) * size
            array.data.read_into(start, some.reshape(-1).view(np.uint8).data)
            block[line : line + at_once] = some[:, wanted]
        return block.reshape(*reversed(self._shape), count)


def arrays_in(file: io.FileIO) -> dict[str, StoredArray | str]:
    """Return the arrays of an .npy file (its name is empty) or of an .npz file, by name.

    Of the arrays of an .npz file that cannot be read, the reason is returned. An .npz file that is
    cut short has the arrays that begin before its end.

    Raises
    ------
    ImageError
        It is neither, or there is no array.
    OSError
        The file cannot be read.
    """
    size = os.fstat(file.fileno()).st_size
    magic = os.pread(file.fileno(), len(npy.MAGIC_PREFIX), 0)
    if magic == npy.MAGIC_PREFIX:
        return {"": _array(Plain(file, 0, size))}
    if not magic:
        raise ImageError("the file is empty")
    if not magic.startswith(b"PK"):
        raise ImageError("neither a NumPy array (.npy) nor a zip of such (.npz)")
    found: dict[str, StoredArray | str] = {}
    for member in _members(file, size):
        if member.name.endswith(".npy"):
            try:
                array: StoredArray | str = _array(_data(member, file, size))
            except ImageError as error:
                array = str(error)
            found[member.name.removesuffix(".npy")] = array
    if not found:
        raise ImageError("a zip without NumPy arrays (.npy) in it")
    return found


@dataclass(frozen=True)
class _Member:
    """One file in a zip. `size` and `checksum` are None if nobody knows."""

    name: str
    offset: int
    flags: int
    method: int
    packed: int
    size: int | None
    checksum: int | None


def _members(file: io.FileIO, size: int) -> list[_Member]:
    try:
        with zipfile.ZipFile(file) as archive:
            return [
                _Member(
                    info.filename,
                    info.header_offset,
                    info.flag_bits,
                    info.compress_type,
                    info.compress_size,
                    info.file_size,
                    info.CRC,
                )
                for info in archive.infolist()
            ]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error):
        return list(_walk(file, size))  # the list of members is at the end


def _walk(file: io.FileIO, size: int) -> Iterator[_Member]:
    """Yield the members of a zip that was cut short, by what stands in front of each."""
    place = 0
    while True:
        header = os.pread(file.fileno(), _LOCAL.size, place)
        if len(header) < _LOCAL.size or not header.startswith(_LOCAL_MAGIC):
            return
        _, _, flags, method, *_, packed, full, naming, more = _LOCAL.unpack(header)
        rest = os.pread(file.fileno(), naming + more, place + _LOCAL.size)
        if _BIG in (packed, full):
            full, packed = _zip64_sizes(rest[naming:], full, packed)
        start = place + _LOCAL.size + naming + more
        known = bool(packed) and not flags & _SIZES_BEHIND and start + packed <= size
        name = rest[:naming].decode(errors="replace")
        left = packed if known else max(0, size - start)
        yield _Member(name, place, flags, method, left, full if known else None, None)
        place = start + left


def _zip64_sizes(fields: bytes, full: int, packed: int) -> tuple[int, int]:
    place = 0
    while place + 4 <= len(fields):
        kind, length = struct.unpack_from("<HH", fields, place)
        if kind == 1:
            field = fields[place + 4 : place + 4 + length]
            sizes = iter(struct.unpack_from(f"<{len(field) // 8}Q", field))
            full = next(sizes, 0) if full == _BIG else full
            packed = next(sizes, 0) if packed == _BIG else packed
        place += 4 + length
    return full, packed


def _data(member: _Member, file: io.FileIO, size: int) -> Data:
    if member.flags & _ENCRYPTED:
        raise ImageError("it is encrypted: decrypt the file first")
    header = os.pread(file.fileno(), _LOCAL.size, max(0, member.offset))
    if len(header) < _LOCAL.size or not header.startswith(_LOCAL_MAGIC):
        raise ImageError("the zip is damaged: no member begins where it says")
    *_, naming, more = _LOCAL.unpack(header)
    start = member.offset + _LOCAL.size + naming + more
    packed = max(0, min(member.packed, size - start))
    most = packed if member.method == zipfile.ZIP_STORED else packed * MOST_DEFLATED
    length = most if member.size is None else min(member.size, most)
    if member.method == zipfile.ZIP_STORED:
        return Plain(file, start, length)
    if member.method == zipfile.ZIP_DEFLATED:
        return Deflated(file, start, packed, length, member.checksum)
    raise ImageError(
        f"it is compressed by a method ({member.method}) that NumPy does not write: "
        "save it with numpy.savez or numpy.savez_compressed"
    )


class _Header:
    """What NumPy reads the header of an array from."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self.place = 0

    def read(self, count: int = 0, /) -> bytes:
        """Return the next bytes."""
        if self.place + count > _LONGEST_HEADER:
            raise ImageError("the array's header is too long for one of numbers")
        if self.place + count > self._data.length:
            raise ImageError("the file ends within the array's header")
        room = bytearray(count)
        self._data.read_into(self.place, memoryview(room))
        self.place += count
        return bytes(room)


def _array(data: Data) -> StoredArray:
    """Read the header of an array."""
    header = _Header(data)
    try:
        version = npy.read_magic(header)
        if version not in _READERS:
            raise ImageError("the array is in a format ({}.{}) for other data".format(*version))
        shape, fortran, dtype = _READERS[version](header)
    except ImageError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ImageError(f"broken header of an array: {reason}") from error
    return StoredArray(data, header.place, shape, dtype, fortran)
