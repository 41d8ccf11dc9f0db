"""Decode images as viewers display them, and hash the bytes of image files."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..sources.rgb import to_rgb
from ..sources.source import ImageError
from .colour import foreign_profile, to_srgb
from .preparation import Preparation

# fmt: off
_FORMATS = (
    "JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "TGA", "ICO",
    "PCX", "QOI", "MPO",
)
# fmt: on
_REDUCED = 2  # times the size of a small picture that is left to scale with antialiasing
_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # keywords of text chunks


def content_hash(data: bytes) -> bytes:
    """Return the xxh3-128 of a file's bytes (16 bytes), which identifies an image in the store."""
    return xxhash.xxh3_128_digest(data)


@dataclass(frozen=True)
class Header:
    """What is known of an image before its pixels are decoded.

    `width` and `height` are in pixels as displayed (EXIF orientation applied). `profile` describes
    an embedded colour profile other than sRGB; empty text for none.
    """

    width: int
    height: int
    profile: str = ""


def read_header(data: bytes) -> Header:
    """Read size and colour profile; raise `ImageError` if the file is broken.

    Only the header is read, unless a PNG has EXIF or XMP data behind its pixels: it is decoded.
    """
    image = _open(data)
    width, height = image.size
    if image.format == "PNG" and _exif_behind_pixels(data):
        with _saying("broken image"):
            image.load()
    with _saying("broken EXIF header"):
        exif = Image.Image.getexif(image)  # PngImageFile's own method may decode the image first
        quarter_turned = exif.get(0x0112, 1) >= 5  # tag Orientation, 5 to 8
    profile = image.info.get("icc_profile")
    described = foreign_profile(bytes(profile)) if profile else ""
    return Header(*((height, width) if quarter_turned else (width, height)), described)


def _exif_behind_pixels(data: bytes) -> bool:
    """Return whether a PNG has chunks with an orientation (EXIF or XMP) behind its pixels."""
    place, pixels = len(_PNG), False
    while place < len(data):
        body = place + 8
        kind = data[body - 4 : body]
        pixels = pixels or kind == b"IDAT"
        if pixels and (kind == b"eXIf" or data.startswith(_EXIF_TEXTS, body)):
            return True
        place = body + int.from_bytes(data[place : place + 4]) + 4  # the checksum
    return False


def decode(data: bytes, how: Preparation | None = None) -> NDArray[np.uint8]:
    """Decode the bytes of an image file to RGB.

    EXIF orientation is applied; transparent pixels are composited over white; 16-bit grey levels
    are scaled to 8 bits; palettes, CMYK and bilevel images become RGB; of several frames only the
    first is used. Embedded colour profiles are ignored unless `how` says otherwise.

    Parameters
    ----------
    data
        The bytes of the file.
    how
        Size, fit and colours; None keeps the size.

    Returns
    -------
    ndarray of shape (height, width, 3), values 0 to 255

    Raises
    ------
    ImageError
        The file is broken, truncated, too large (a decompression bomb), or not an image.
    """
    image = _open(data)
    with _saying("broken image"):
        image = ImageOps.exif_transpose(image)
        if how is None:
            return np.asarray(to_rgb(image))
        return np.asarray(how.scale(_coloured(image, how)))


def decode_small(data: bytes, how: Preparation) -> NDArray[np.uint8]:
    """Decode the bytes of an image file to a small RGB picture for people to look at.

    As `decode` with a size, but a JPEG is decoded at a half, a quarter or an eighth of its size
    where twice the wanted size is left. That is several times as quick and gives slightly other
    pixels, so no row may be made of them.

    Raises
    ------
    ImageError
        As for `decode`.
    """
    header = read_header(data)
    image = _open(data)
    height, width = how.size
    with _saying("broken image"):
        image.draft(None, (_REDUCED * width, _REDUCED * height))
        image = ImageOps.exif_transpose(image)
        small = how.scale(_coloured(image, how), (header.width, header.height))
        return np.asarray(small)


def _coloured(image: Image.Image, how: Preparation) -> Image.Image:
    """Return an image as RGB, its profile converted if that is asked for."""
    if how.icc == "convert" and not image.mode.startswith(("I", "F")):
        image = to_srgb(image)
    return to_rgb(image)


@contextmanager
def _saying(what: str) -> Iterator[None]:
    """Turn whatever Pillow raises into an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{what}: {str(error) or type(error).__name__}") from error


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("the file is empty")
    try:
        return Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError as error:
        raise ImageError("not an image, or of a kind that Pillow cannot read") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"refused as a decompression bomb: {error}") from error
    except Exception as error:
        raise ImageError(f"broken image header: {error}") from error


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that Pillow may open: none that needs another program (PostScript)."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
