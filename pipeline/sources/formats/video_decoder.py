"""Decode frames of a video by number, with PyAV: forwards, and after a search the same pixels."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...common.optional import optional
from ..source import ImageError
from .video_index import FrameIndex, short_of

_WORTH_A_SEARCH = 16  # frames that need not be decoded


def pyav() -> Any:  # noqa: ANN401
    """Return the module `av`.

    Raises
    ------
    UsageError
        It is not installed; the message says how to get it.
    """
    return optional("av", "videos need PyAV", "lpipstore[video]")


def damage() -> tuple[type[Exception], ...]:
    """Return what PyAV raises for damaged files."""
    return pyav().error.FFmpegError, OSError


def open_video(place: str) -> tuple[Any, Any]:
    """Return the container and its first stream of moving pictures, to be decoded in one thread.

    Raises
    ------
    ImageError
        There is none.
    """
    library = pyav()
    try:
        container = library.open(place)
    except damage() as error:
        why = short_of(place) or getattr(error, "strerror", None) or str(error)
        raise ImageError(f"not a video, or damaged: {why}") from error
    cover = library.stream.Disposition.attached_pic
    streams = [one for one in container.streams.video if not one.disposition & cover]
    if not streams or streams[0].codec_context is None:
        kinds = ", ".join(sorted({stream.type for stream in container.streams}))
        container.close()
        reason = (
            "its codec is unknown to PyAV"
            if streams
            else f"only {kinds}"
            if kinds
            else "it is empty"
        )
        raise ImageError(f"there is no video in it that can be decoded: {reason}")
    context = streams[0].codec_context
    context.thread_type = "NONE"
    context.thread_count = 1
    context.options = {"err_detect": "crccheck+explode"}  # rather no frame than an invented one
    return container, streams[0]


def frames_of(container: Any, stream: Any) -> Iterator[Any]:  # noqa: ANN401
    """Yield the frames that decode, in the order in which they are shown."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except damage():
            packet = None
        if packet is None:
            break
        yield from _decoded(packet.decode)
    yield from _decoded(stream.codec_context.decode)  # what waits in the decoder


def _decoded(decode: Any) -> Iterator[Any]:  # noqa: ANN401
    try:
        frames = decode()
    except damage():  # also the end, if the decoder was emptied before
        return
    yield from (frame for frame in frames if not frame.is_corrupt)


def stamp_of(frame: Any) -> int | None:  # noqa: ANN401
    """Return when a frame is shown, in units of the time base; None if nothing tells."""
    stamp: int | None = frame.dts if frame.pts is None else frame.pts
    return stamp


class VideoDecoder:
    """Decodes frames of one file by number, forwards as long as that is the shorter way.

    What a run over the file passes and does not give is damaged, if the run began a key frame
    earlier than it had to: frames may need what lies before their key frame.
    """

    def __init__(self, place: str, index: FrameIndex) -> None:
        formats = pyav().video.reformatter
        self._place, self._index = place, index
        self._reformatter = formats.VideoReformatter()
        flags = formats.Interpolation
        self._conversion = flags.BILINEAR | flags.ACCURATE_RND | flags.BITEXACT
        self._damaged: set[int] = set()
        self._container: Any = None
        self._restart()

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()

    def read(self, number: int) -> torch.Tensor:
        """Return the pixels of a frame: [height, width, 3], uint8.

        Raises
        ------
        ImageError
            It does not decode.
        """
        if number not in self._damaged and self._is_far(number):
            self._search(number, 0)
        frame = self._advance(number)
        if frame is None and number not in self._damaged:
            self._search(number, 1)
            frame = self._advance(number)
        if frame is None:
            raise ImageError("the frame is damaged and does not decode")
        pixels = self._reformatter.reformat(
            frame, format="rgb24", interpolation=self._conversion, threads=1
        ).to_ndarray()
        return torch.from_numpy(np.ascontiguousarray(_turned(pixels, frame)))

    def _is_far(self, number: int) -> bool:
        if number <= self._number:
            return number < self._number
        key = self._key_before(number)
        saved = 0 if key is None else self._number_of(self._keys[key]) - self._number
        return saved > _WORTH_A_SEARCH

    @property
    def _keys(self) -> list[int]:
        return self._index.keys or []

    def _key_before(self, number: int) -> int | None:
        place = bisect_right(self._keys, self._index.stamps[number]) - 1
        return place if place >= 0 else None

    def _number_of(self, stamp: int) -> int:
        return bisect_left(self._index.stamps, stamp)

    def _restart(self) -> None:
        """Go to the beginning of the file."""
        self.close()
        self._container, self._stream = open_video(self._place)
        self._coming = frames_of(self._container, self._stream)
        self._frame, self._number, self._sure_from = None, -1, 0

    def _search(self, number: int, earlier: int) -> None:
        """Go to the key frame of a frame, or to one that is so many key frames earlier."""
        key = self._key_before(number)
        if key is None or key - earlier <= 0:
            self._restart()
            return
        key -= earlier
        try:
            self._container.seek(self._keys[key], stream=self._stream)
        except damage():
            self._restart()
            return
        self._coming = frames_of(self._container, self._stream)
        self._frame, self._number = None, -1
        following = self._keys[key + 1 : key + 2]
        end = len(self._index.stamps)
        self._sure_from = self._number_of(following[0]) if following else end
        found = self._step()
        if not found or self._number > self._number_of(self._keys[key]):  # searched too far
            self._restart()

    def _advance(self, number: int) -> Any:  # noqa: ANN401
        """Decode until a frame; return None if it does not come."""
        while self._number < number and self._step():
            pass
        return self._frame if self._number == number else None

    def _step(self) -> bool:
        """Decode the next frame of the index; return False at the end."""
        stamps = self._index.stamps
        before, self._frame = self._number, None
        for frame in self._coming:
            stamp = stamp_of(frame)
            number = len(stamps) if stamp is None else self._number_of(stamp)
            if number < len(stamps) and stamps[number] == stamp:
                self._frame, self._number = frame, number
                break
        else:
            self._number = len(stamps)
        self._damaged.update(range(max(before + 1, self._sure_from), self._number))
        return self._frame is not None


def _turned(pixels: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:  # noqa: ANN401
    """Turn and mirror pixels by the display matrix, if it does so by quarters."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    numbers = np.frombuffer(bytes(matrix), np.int32)  # [a, b, u, c, d, v, x, y, w]
    right, down = (numbers[0], numbers[4]), (numbers[3], numbers[1])
    if not any(right):  # x is shown down, y to the right
        pixels, right = pixels.swapaxes(0, 1), down
    elif any(down):
        return pixels
    return pixels[:: -1 if right[1] < 0 else 1, :: -1 if right[0] < 0 else 1]
