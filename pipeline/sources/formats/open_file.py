"""Files on disk, read whole or in parts by several threads."""

import os
import stat
import time

from ..source import ImageError


def read_file(path: str) -> bytes:
    """Return the bytes of a file.

    Raises
    ------
    ImageError
        It cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error


class OpenFile:
    """A regular file, open until nothing refers to it, so that a read in a thread is never cut.

    Raises
    ------
    OSError
        It cannot be opened, or is not regular (reading a pipe would never end).
    """

    def __init__(self, place: str) -> None:
        self.seen_ns = time.time_ns()
        self.fd = -1
        self.fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self.status = os.fstat(self.fd)
        if not stat.S_ISREG(self.status.st_mode):
            raise OSError(0, "not a regular file")
        self.size = self.status.st_size

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    @property
    def version(self) -> tuple[int, int, int]:
        """Size, modification time and inode."""
        return self.size, self.status.st_mtime_ns, self.status.st_ino

    def read_into(self, offset: int, room: memoryview) -> int:
        """Fill `room` as far as the file goes; return the number of bytes."""
        done = 0
        while done < len(room):
            count = os.preadv(self.fd, [room[done:]], offset + done)
            if not count:
                break
            done += count
        return done

    def read_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes, or fewer where the file ends; threads may call it at once."""
        parts: list[bytes] = []
        size = max(0, min(size, self.size - offset))
        while size:
            part = os.pread(self.fd, size, offset)
            if not part:
                break
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class BufferedReads:
    """Reads a file in pieces that hold several small members, where each would be one call."""

    _AT_ONCE = 32 << 10

    def __init__(self, file: OpenFile) -> None:
        self._file, self._start, self._data = file, 0, b""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes, or fewer where the file ends."""
        begin = offset - self._start
        if begin < 0 or begin + size > len(self._data):
            self._start, self._data = offset, self._file.read_at(offset, max(size, self._AT_ONCE))
            begin = 0
        return self._data[begin : begin + size]
