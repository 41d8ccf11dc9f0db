"""Find images, name them by their content, decode them the way that people see them."""

import glob
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..cache.errors import LpipstoreError, UsageError
from ..cache.index import FileIdentity, FileRecord
from .files import FileTable, identify, printable
from .progress import Report, silent

# fmt: off
IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".webp", ".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".pcx",
    ".qoi",
))
# fmt: on
# fmt: off
_FORMATS = (
    "JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "TGA", "ICO",
    "PCX", "QOI", "MPO",
)
# fmt: on
_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # keywords of text chunks
_HASHING_THREADS = 4  # reading waits for the disk and hashing releases the interpreter lock


class ImageError(LpipstoreError):
    """One image cannot be used; the message says why, without its path."""


@dataclass(frozen=True)
class Found:
    """What a search found: image files in order, and folders that could not be read."""

    paths: list[str]
    unreadable: list[tuple[str, str]]


@dataclass(frozen=True)
class ImageRecord:
    """One image of a collection as the survey saw it, before its pixels were decoded.

    `width` and `height` are in pixels as displayed (EXIF orientation applied), `bytes` is the
    file's size, `content` the xxh3-128 of its bytes (None if it could not be read or is no image,
    and then `error` says why).
    """

    path: str
    content: bytes | None = None
    width: int = 0
    height: int = 0
    bytes: int = 0
    error: str | None = None


def find_images(sources: Iterable[str | os.PathLike[str]]) -> Found:
    """List the image files that folders, files and glob patterns stand for.

    Folders are searched with all their subfolders, following links but never in a loop, for names
    with a suffix in `IMAGE_SUFFIXES`; names that begin with a dot are passed over. A file that is
    named itself is taken whatever its suffix. Within a folder the order is that of the names,
    folder by folder; a file that is reached twice is listed once.

    Raises
    ------
    UsageError
        A source does not exist, or a pattern matches nothing.
    """
    found: dict[str, str] = {}
    unreadable: list[tuple[str, str]] = []
    for source in sources:
        for path in _expand(os.fspath(source)):
            files = _walk(path, unreadable) if os.path.isdir(path) else iter((path,))
            for file in files:
                found.setdefault(os.path.abspath(file), file)
    return Found(list(found.values()), unreadable)


def _expand(source: str) -> list[str]:
    if os.path.lexists(source):
        return [source]
    if glob.has_magic(source):
        matches = sorted(glob.glob(source, recursive=True))
        if not os.path.splitext(source)[1]:  # a pattern that names no suffix is like a folder
            matches = [m for m in matches if _suffix(m) in IMAGE_SUFFIXES or os.path.isdir(m)]
        if matches:
            return matches
        raise UsageError(f"no image matches the pattern {printable(source)}")
    raise UsageError(f"no such file or folder: {printable(source)}")


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _walk(folder: str, unreadable: list[tuple[str, str]]) -> Iterator[str]:
    """Yield the image files below `folder` in order; folders that cannot be read go on the list."""
    seen: set[tuple[int, int]] = set()

    def note(error: OSError) -> None:
        unreadable.append((str(error.filename), f"folder cannot be read: {error.strerror}"))

    for root, folders, names in os.walk(folder, followlinks=True, onerror=note):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:  # a link back to where we have been
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if _suffix(name) in IMAGE_SUFFIXES and not name.startswith("."):
                yield os.path.join(root, name)


def survey(
    paths: Sequence[str], table: FileTable, *, rehash: bool = False, report: Report = silent
) -> list[ImageRecord]:
    """Name each file by its content and read its width and height, without decoding any pixels.

    Files whose path, size, time and inode are those of the table are not opened at all, unless
    `rehash` is set. Files that cannot be read or are no images come back with an `error`.
    """
    identities = [_identity(path) for path in paths]
    known: list[FileRecord | None] = [None] * len(paths)
    if not rehash:
        askable = [i for i, identity in enumerate(identities) if isinstance(identity, FileIdentity)]
        answers = table.recall_files([identities[i] for i in askable])  # type: ignore[misc]
        for i, answer in zip(askable, answers, strict=True):
            known[i] = answer
    records: list[ImageRecord] = []
    news: list[tuple[FileIdentity, FileRecord]] = []
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        for record, identity, old in zip(
            pool.map(_examine, paths, identities, known), identities, known, strict=True
        ):
            records.append(record)
            if (
                (old is None or old.content != record.content)
                and record.content is not None
                and isinstance(identity, FileIdentity)
            ):
                note = f"{record.width}x{record.height}"
                news.append((identity, FileRecord(record.content, note)))
            report("hash", len(records), len(paths))
    table.remember_files(news)
    return records


def _identity(path: str) -> FileIdentity | str:
    """What tells a file from another version of itself; or the reason why it cannot be had."""
    try:
        return identify(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _examine(path: str, identity: FileIdentity | str, known: FileRecord | None) -> ImageRecord:
    if isinstance(identity, str):
        return ImageRecord(path, error=identity)
    if known is not None and re.fullmatch(r"\d+x\d+", known.note):  # else known as a weights file
        width, height = map(int, known.note.split("x"))
        return ImageRecord(path, known.content, width, height, identity.size)
    try:
        data = read_file(path)
        width, height = displayed_size(data)
    except ImageError as error:
        return ImageRecord(path, bytes=identity.size, error=str(error))
    return ImageRecord(path, content_hash(data), width, height, len(data))


def read_file(path: str) -> bytes:
    """Return the bytes of a file; raises `ImageError` with the system's reason if it cannot."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error


def content_hash(data: bytes) -> bytes:
    """Return the xxh3-128 of a file's bytes (16 bytes): what an image is called in the store."""
    return xxhash.xxh3_128_digest(data)


def displayed_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) as displayed, read from the header alone; raises `ImageError`."""
    image = _open(data)
    width, height = image.size
    if image.format == "PNG" and _exif_behind_pixels(data):
        with _saying("broken image"):
            image.load()
    with _saying("broken EXIF header"):
        exif = Image.Image.getexif(image)  # a PNG's own would always decode it first
        quarter_turned = exif.get(0x0112, 1) >= 5  # tag Orientation, 5 to 8
    return (height, width) if quarter_turned else (width, height)


def _exif_behind_pixels(data: bytes) -> bool:
    """Tell whether a PNG has chunks that give an orientation where Pillow reads them last."""
    place, pixels = len(_PNG), False
    while place < len(data):
        body = place + 8
        kind = data[body - 4 : body]
        pixels = pixels or kind == b"IDAT"
        if pixels and (kind == b"eXIf" or data.startswith(_EXIF_TEXTS, body)):
            return True
        place = body + int.from_bytes(data[place : place + 4]) + 4  # the checksum
    return False


def decode(data: bytes, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Decode the bytes of an image file to RGB as a viewer would show it.

    EXIF orientation is applied; transparent pixels are laid over white; grey levels of 16 bits
    are scaled to 8; palettes, CMYK and bilevel images become RGB; of several frames the first one
    counts.

    Parameters
    ----------
    data
        The bytes of the file.
    size
        (height, width) to scale to, bilinear with antialiasing (Pillow); None keeps the size.

    Returns
    -------
    ndarray of shape (height, width, 3), values 0 to 255

    Raises
    ------
    ImageError
        The file is broken, truncated, too large (a decompression bomb), or no image.
    """
    image = _open(data)
    with _saying("broken image"):
        image = _to_rgb(ImageOps.exif_transpose(image))
        if size is not None and image.size != size[::-1]:
            image = image.resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(image)


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
    """What Pillow may take a file for: never what needs another program, such as PostScript."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError("floating-point pixels have no known range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        return _from_deep_grey(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _from_deep_grey(grey: NDArray[np.integer]) -> Image.Image:
    """Scale grey levels 0 to 65535 to 8 bits, where Pillow's own conversion would clip them."""
    if grey.min() < 0 or grey.max() > 65535:
        low, high = int(grey.min()), int(grey.max())
        raise ImageError(f"grey levels from {low} to {high} fit neither 8 nor 16 bits")
    return Image.fromarray(
        ((grey.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    ).convert("RGB")
