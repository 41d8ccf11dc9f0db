"""When the frames of a video are shown, by its packets and without decoding where they tell."""

import re
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from ....cache.errors import UsageError, setting

MICROSECONDS = 1_000_000
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # identifiers of Matroska


@dataclass(frozen=True)
class FrameStep:
    """Which frames of a video are taken: one in so many seconds, or one of so many frames."""

    seconds: Fraction | None = None
    frames: int = 1


def parse_step(text: str | None) -> FrameStep:
    """Parse ``0.5s`` (one frame every half second) or ``10f`` (every tenth); None is every frame.

    Raises
    ------
    UsageError
        It is neither, or not above 0.
    """
    if text is None:
        return FrameStep()
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)s|(\d+)f)", text.strip(), re.ASCII)
    step = match and (FrameStep(Fraction(match[1])) if match[1] else FrameStep(None, int(match[2])))
    if not step or step.seconds == 0 or step.frames == 0:
        raise UsageError(
            f"{setting('every', text)} is no step: write 0.5s for one frame every half second, or "
            "10f for every tenth frame"
        )
    return step


def time_name(microseconds: int) -> str:
    """Return the name of a frame: ``t=1.5``, in seconds, with as few decimals as are exact."""
    whole, rest = divmod(abs(microseconds), MICROSECONDS)
    decimals = f".{rest:06}".rstrip("0") if rest else ""
    return f"t={'-' if microseconds < 0 else ''}{whole}{decimals}"


def parse_time(member: str) -> int | None:
    """Return the microseconds of a frame's name, None if it is none; ``t=1.50`` is ``t=1.5``."""
    match = re.fullmatch(r"t=(-?\d+(?:\.\d{1,6})?)", member, re.ASCII)
    return int(Fraction(match[1]) * MICROSECONDS) if match else None


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a video in the order in which they are shown.

    Attributes
    ----------
    stamps
        Presentation time stamps, in units of the stream's time base; ascending.
    times
        The same in microseconds, rounded; of several frames that round alike the first is kept.
    keys
        Time stamps at which decoding can begin, ascending; None where a search by time is not
        exact, so that decoding begins with the file.
    ending
        Why there are no more frames, if the file is damaged.
    """

    stamps: list[int]
    times: list[int]
    keys: list[int] | None
    ending: str | None = None

    @classmethod
    def of(
        cls, stamps: Iterable[int], base: Fraction, keys: list[int] | None, ending: str | None
    ) -> "FrameIndex":
        """Sort time stamps in units of `base` seconds, and round them to microseconds."""
        known: dict[int, int] = {}
        for stamp in sorted(stamps):
            known.setdefault(round(stamp * base * MICROSECONDS), stamp)
        return cls([*known.values()], [*known], keys, ending)

    def number(self, microseconds: int) -> int | None:
        """Return the number of the frame of a time; None if no frame has it."""
        place = bisect_right(self.times, microseconds) - 1
        return place if place >= 0 and self.times[place] == microseconds else None

    def taken(self, step: FrameStep) -> Iterator[int]:
        """Yield the times of the frames that a step takes, the first frame always."""
        if step.seconds is None:
            yield from self.times[:: step.frames]
            return
        length = step.seconds * MICROSECONDS
        due = 0
        for time in self.times:
            steps = (time - self.times[0]) // length
            if steps >= due:
                yield time
                due = steps + 1


def index_packets(
    container: Any,  # noqa: ANN401
    stream: Any,  # noqa: ANN401
    errors: tuple[type[Exception], ...],
) -> FrameIndex | None:
    """Read the time stamps of all packets; None if they do not tell those of the frames.

    Parameters
    ----------
    container, stream
        Of PyAV, at the beginning.
    errors
        What demuxing raises for damaged files.
    """
    stamps: list[int] = []
    keys: list[int] = []
    ending = None
    try:
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard:  # the end, or a frame that is not shown
                continue
            if packet.pts is None:
                return None
            stamps.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
    except errors as error:
        ending = str(error)
    if len(set(stamps)) < len(stamps):
        return None
    return FrameIndex.of(stamps, Fraction(stream.time_base), sorted(keys), ending)


def short_of(path: str) -> str | None:
    """Say how many bytes a video file lacks; None if it lacks none, or does not say."""
    try:
        missing = missing_bytes(path)
    except OSError:  # opening it tells why
        return None
    return f"the file lacks its last {missing:,} bytes" if missing else None


def missing_bytes(path: str | Path) -> int:
    """Return how many bytes a video file lacks of what it says it has; 0 if it does not say.

    Matroska and WebM, MP4 and QuickTime, and AVI say so at the beginning of their parts.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(12)
        file.seek(0)
        if head.startswith(_EBML):
            end = _end_of_matroska(file)
        elif head.startswith(b"RIFF"):
            end = 8 + int.from_bytes(head[4:8], "little")
        elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
            end = _end_of_boxes(file, size)
        else:
            return 0
        return max(end - size, 0)


def _end_of_matroska(file: BinaryIO) -> int:
    """Return where the segment ends; 0 if it does not say."""
    for identifier in (_EBML, _SEGMENT):
        if file.read(4) != identifier:
            return 0
        first = file.read(1)
        length = 9 - first[0].bit_length() if first else 9
        rest = file.read(length - 1)
        if length > 8 or len(rest) < length - 1:
            return 0
        size = int.from_bytes(bytes([first[0] & (0x7F >> (length - 1) % 8)]) + rest)
        if size == (1 << 7 * length) - 1:  # unknown: written to a pipe
            return 0
        file.seek(size, 1)
    return file.tell()


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Return where the last box ends that begins in the file."""
    place = 0
    while place + 8 <= size:
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = int.from_bytes(file.read(8))
        if length == 0 or not kind.isascii():  # to the end of the file, or something else behind
            return size
        place += max(length, 8)
    return place
