"""Bytes that lie in a file, as they are or deflated, read from any place on."""

import zlib
from contextlib import suppress
from threading import Lock
from typing import Protocol

from ..source import ImageError
from .open_file import OpenFile

MOST_DEFLATED = 1032
"""A deflated byte makes no more bytes than this."""

_CHUNK = 1 << 15  # deflated bytes that are read at once
_STEP = 1 << 16  # bytes that are inflated at once where they are skipped
_MARK_EVERY = 8 << 20  # bytes between two places at which inflating may begin, at least
_MOST_MARKS = 64  # each takes some 50 kB


class Data(Protocol):
    """The bytes of one array file, wherever they lie. Threads may share it.

    Attributes
    ----------
    length
        Number of bytes; fewer may be readable if `sequential`.
    sequential
        Whether it is read quickly only from the beginning to the end.
    """

    length: int
    sequential: bool

    def read_into(self, start: int, room: memoryview) -> None:
        """Fill `room` with the bytes from `start` on; raise `ImageError` where they end."""

    def verify(self) -> None:
        """Compare a checksum, if there is one and this was not yet done.

        If it is another, nothing can be read any more.
        """


class Plain:
    """Bytes that lie in a file as they are.

    They are read, not mapped: a mapped file that another process cuts short would end this one, and
    what was read of it would count as this one's memory.
    """

    sequential = False

    def __init__(self, file: OpenFile, start: int, length: int) -> None:
        self.length = length
        self._file = file
        self._start = start

    def read_into(self, start: int, room: memoryview) -> None:
        """Fill `room` with the bytes from `start` on."""
        if self._file.read_into(self._start + start, room) < len(room):
            raise ImageError("the file ends in the middle of it")

    def verify(self) -> None:
        """Do nothing: like a mapped file, what is read later is not read now."""


class Deflated:
    """Bytes that were compressed with deflate: inflated from the beginning on, little by little.

    The inflater's state is kept at a few places, so that a read behind the last one need not begin
    at the beginning.

    Parameters
    ----------
    file, start, packed
        Where the compressed bytes lie, and how many there are.
    length
        Number of bytes that they make.
    checksum
        CRC-32 of these; None if nobody knows.
    """

    sequential = True

    def __init__(
        self, file: OpenFile, start: int, packed: int, length: int, checksum: int | None
    ) -> None:
        self.length = length
        self._file = file
        self._stop = start + packed
        self._lock = Lock()
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._input = b""
        self._offset = start  # of the file, where the bytes behind `_input` lie
        self._position = 0  # of the next inflated byte
        self._marks = [(0, start, self._inflater.copy())]
        self._spacing = max(_MARK_EVERY, length // _MOST_MARKS)
        self._broken: tuple[int, str] | None = None
        self._unverified = checksum

    def read_into(self, start: int, room: memoryview) -> None:
        """Fill `room` with the bytes from `start` on."""
        with self._lock:
            if self._broken is not None and start + len(room) > self._broken[0]:
                raise ImageError(self._broken[1])
            self._seek(start)
            done = 0
            while done < len(room):
                part = self._inflate(len(room) - done)
                room[done : done + len(part)] = part
                done += len(part)

    def verify(self) -> None:
        """Inflate all of it once, and compare the checksum.

        Damage hardly ever breaks the compressed stream itself: what comes out is just wrong, from
        an unknown place on.
        """
        with self._lock:
            if self._unverified is None:
                return
            self._go_to(0)
            found = 0
            with suppress(ImageError):  # it ends too early, which the checksum tells
                while self._position < self.length:
                    found = zlib.crc32(self._inflate(_STEP), found)
            if found != self._unverified:
                self._broken = 0, "the compressed data are damaged: their checksum is another"
            self._unverified = None

    def _seek(self, start: int) -> None:
        position = max(mark[0] for mark in self._marks if mark[0] <= start)
        if not position <= self._position <= start:
            self._go_to(position)
        while self._position < start:
            self._inflate(min(start - self._position, _STEP))

    def _go_to(self, position: int) -> None:
        """Go on at a mark."""
        state = next(mark for mark in self._marks if mark[0] == position)
        self._position, self._offset, self._input = *state[:2], b""
        self._inflater = state[2].copy()

    def _inflate(self, most: int) -> bytes:
        """Return the next bytes, one at least and `most` at most."""
        while True:
            if self._inflater.eof:  # what lies behind would stay in `_input` for ever
                raise self._end("the compressed data end before it")
            try:
                part = self._inflater.decompress(self._input, most)
            except zlib.error as error:
                raise self._end(f"the compressed data are damaged: {error}") from error
            self._input = self._inflater.unconsumed_tail
            if part:
                break
            if not self._input and not self._inflater.eof:
                left = self._stop - self._offset
                self._input = self._file.read_at(self._offset, min(left, _CHUNK))
                self._offset += len(self._input)
                if not self._input:
                    raise self._end("the compressed data end before it")
        self._position += len(part)
        if self._position >= self._marks[-1][0] + self._spacing:
            offset = self._offset - len(self._input)
            self._marks.append((self._position, offset, self._inflater.copy()))
        return part

    def _end(self, reason: str) -> ImageError:
        """Note that there is nothing behind this position."""
        self._broken = self._position, reason
        return ImageError(reason)
