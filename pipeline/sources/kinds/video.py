"""Videos: the frames of a file, decoded by PyAV (the extra ``lpipstore[video]``)."""

import os
from dataclasses import replace
from fractions import Fraction
from threading import RLock
from typing import TYPE_CHECKING

import torch

from ..formats.video_decoder import VideoDecoder, damage, frames_of, open_video, pyav, stamp_of
from ..formats.video_index import (
    FrameIndex,
    index_packets,
    parse_step,
    parse_time,
    short_of,
    time_name,
)
from ..identity import identify
from ..source import ImageError, Listing, SourceOptions

if TYPE_CHECKING:
    from ....cache.index import FileIdentity

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")


class Video:
    """A video file; members are presentation times in seconds, such as ``t=1.5``.

    A frame is what the decoder gives, in one thread, converted to 8-bit RGB by PyAV (swscale,
    bilinear and bit-exact; 10 and 12 bits are rounded to 8, the matrix is that of the stream and
    BT.601 where it names none) and turned as its display matrix says. Frames are not deinterlaced,
    not tone-mapped, and pixels that are not square are not stretched. Frames that the decoder calls
    damaged fail; damage that it conceals cannot be told.

    Raises
    ------
    UsageError
        `options.every` is written wrong; from every method but `close`: PyAV is missing.
    """

    sequential = True

    def __init__(self, place: str, options: SourceOptions | None = None) -> None:
        self.place = place
        self._step = parse_step((options or SourceOptions()).every)
        self._lock = RLock()
        self._identity: FileIdentity | None = None
        self._index: FrameIndex | None = None
        self._decoder: VideoDecoder | None = None

    @staticmethod
    def takes(place: str) -> bool:
        """Return whether a path ends like that of a video, and is no folder."""
        return place.lower().endswith(SUFFIXES) and not os.path.isdir(place)

    def list(self) -> Listing:
        """List the times of the frames that `options.every` takes; pixels are not decoded."""
        with self._lock:
            index = self._indexed()
        listing = Listing([time_name(time) for time in index.taken(self._step)])
        if index.ending is not None:
            last = time_name(index.times[-1])
            listing.unreadable.append((self.place, f"ends early, after {last}: {index.ending}"))
        return listing

    def version(self, member: str) -> "FileIdentity":
        """Return that of the file, with the time and what decodes it: others decode otherwise."""
        library = pyav()
        with self._lock:
            if self._identity is None:
                self._identity = identify(self.place)
            path = self._identity.path + os.fsencode(f"#{member}#PyAV {library.__version__}")
            return replace(self._identity, path=path)

    def read(self, member: str) -> torch.Tensor:
        """Return the pixels of a frame: [height, width, 3], uint8."""
        time = parse_time(member)
        if time is None:
            raise ImageError("names no frame: frames are named by their times, such as t=1.5")
        with self._lock:
            index = self._indexed()
            number = index.number(time)
            if number is None:
                near = [time_name(t) for t in sorted(index.times, key=lambda t: abs(t - time))[:2]]
                raise ImageError(f"no frame has this time; the nearest are {' and '.join(near)}")
            if self._decoder is None:
                self._decoder = VideoDecoder(self.place, index)
            return self._decoder.read(number)

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            if self._decoder is not None:
                self._decoder.close()
            self._decoder = self._index = self._identity = None

    def _indexed(self) -> FrameIndex:
        if self._index is None:
            self._index = _index(self.place)
        return self._index


def _index(place: str) -> FrameIndex:
    """Return the times of all frames, from packets if they tell, else by decoding.

    Raises
    ------
    ImageError
        There are none.
    """
    container, stream = open_video(place)
    with container:
        index = index_packets(container, stream, damage())
    if index is None:
        container, stream = open_video(place)
        with container:
            stamps = [stamp_of(frame) for frame in frames_of(container, stream)]
            known = [stamp for stamp in stamps if stamp is not None]
            ending = f"{len(stamps) - len(known):,} frames have no time" if None in stamps else None
            index = FrameIndex.of(known, Fraction(stream.time_base), None, ending)
    if not index.times:
        raise ImageError(f"it has no frames{f': {index.ending}' if index.ending else ''}")
    short = short_of(place)
    return replace(index, ending=short) if short else index
