"""Arrays in .npy and .npz files, read part by part: none is loaded whole, none is unpickled.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import math
import zipfile
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..source import ImageError
from .open_file import OpenFile
from .stored_bytes import MOST_DEFLATED, Data, Deflated, Plain
from .zip_directory import ZipEntry, data_start, read_directory

_LONGEST_HEADER = 1 << 16
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
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


def arrays_in(file: OpenFile) -> dict[str, StoredArray | str]:
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
    magic = file.read_at(0, len(npy.MAGIC_PREFIX))
    if magic == npy.MAGIC_PREFIX:
        return {"": _array(Plain(file, 0, file.size))}
    if not magic:
        raise ImageError("the file is empty")
    if not magic.startswith(b"PK"):
        raise ImageError("neither a NumPy array (.npy) nor a zip of such (.npz)")
    directory = read_directory(file)
    members = [(name, entry, True) for name, entry in directory.entries]
    if directory.cut is not None:
        members.append((*directory.cut, False))
    found: dict[str, StoredArray | str] = {}
    for name, entry, whole in members:
        if name.endswith(".npy"):
            try:
                array: StoredArray | str = _array(_data(file, entry, whole=whole))
            except ImageError as error:
                array = str(error)
            found[name.removesuffix(".npy")] = array
    if not found:
        raise ImageError("a zip without NumPy arrays (.npy) in it")
    return found


def _data(file: OpenFile, entry: ZipEntry, *, whole: bool) -> Data:
    """Return the bytes of a member; of one that is not whole, nobody knows how many there are."""
    if entry.encrypted:
        raise ImageError("it is encrypted: decrypt the file first")
    start = data_start(file, entry)
    packed = max(0, min(entry.stored, file.size - start))
    most = packed if entry.method == zipfile.ZIP_STORED else packed * MOST_DEFLATED
    length = min(entry.size, most) if whole else most
    if entry.method == zipfile.ZIP_STORED:
        return Plain(file, start, length)
    if entry.method == zipfile.ZIP_DEFLATED:
        return Deflated(file, start, packed, length, entry.crc if whole else None)
    raise ImageError(
        f"it is compressed by a method ({entry.method}) that NumPy does not write: "
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
