"""What is done alike with the bytes of an image file and with decoded pixels."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..sources.arrays import pixels_content
from ..sources.source import ImageData, ImageError
from ..sources.sources import Sources
from .decode import Header, content_hash, decode, decode_small, read_header
from .preparation import Preparation

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]


def content_of(data: ImageData) -> bytes:
    """Return the xxh3-128 (16 bytes) that identifies an image in the store."""
    return content_hash(data) if isinstance(data, bytes) else pixels_content(data)


def header_of(data: ImageData) -> Header:
    """Return size and colour profile; raise `ImageError` if the file is broken."""
    if isinstance(data, bytes):
        return read_header(data)
    return Header(int(data.shape[1]), int(data.shape[0]))


def bytes_of(data: ImageData) -> int:
    """Return the size of the file or of the pixels."""
    return len(data) if isinstance(data, bytes) else data.nbytes


def prepared_pixels(data: ImageData, how: Preparation) -> Pixels:
    """Return pixels [height, width, 3] as the trunk gets them: uint8, or float32 in -1..1.

    Raises
    ------
    ImageError
        The file is broken, too large or not an image.
    """
    if isinstance(data, bytes):
        return decode(data, how)
    prepared: Pixels = how.scale_pixels(data).numpy()
    return prepared


def thumbnail_pixels(data: ImageData, how: Preparation) -> Pixels:
    """Return pixels as `prepared_pixels` does, quicker and for people only.

    Raises
    ------
    ImageError
        As for `prepared_pixels`.
    """
    return decode_small(data, how) if isinstance(data, bytes) else prepared_pixels(data, how)


def read_unchanged(sources: Sources, name: str, content: bytes) -> ImageData:
    """Read an image whose content hash is known.

    Raises
    ------
    ImageError
        It cannot be read, or it has changed: its row must not get another image's key.
    """
    data = sources.read(name)
    if content_of(data) != content:
        raise ImageError("the file changed during the run; run again")
    return data
