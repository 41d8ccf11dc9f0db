"""Hash each image file and read its size, without decoding pixels."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from ...cache.index import FileIdentity, FileRecord
from ..common.progress import Report, silent
from .data import bytes_of, content_of, size_of
from .decode import ImageError
from .identity import FileTable
from .objects import REQUESTS
from .sources import Sources

_REMEMBERED = 1000  # images after which what is known of them is kept
_HASHING_THREADS = 4  # reading waits for the disk and hashing releases the interpreter lock


@dataclass(frozen=True)
class ImageRecord:
    """One image of a collection as found by the survey, before decoding.

    `path` is the image's name: a path, or a place and a member. `width` and `height` are in pixels
    as displayed (EXIF orientation applied), `bytes` is the size of the file or of the pixels,
    `content` the xxh3-128 of either. If the image cannot be read, `content` is None and `error`
    gives the reason.
    """

    path: str
    content: bytes | None = None
    width: int = 0
    height: int = 0
    bytes: int = 0
    error: str | None = None


def survey(
    names: Sequence[str],
    sources: Sources,
    table: FileTable,
    *,
    rehash: bool = False,
    report: Report = silent,
) -> list[ImageRecord]:
    """Hash each image and read its width and height, without decoding pixels.

    Images whose version matches the table are not opened, unless `rehash` is set. Images that
    cannot be read come back with an `error`. Many images behind URLs are read at the same time.
    """
    versions = _versions(names, sources)
    known: list[FileRecord | None] = [None] * len(names)
    if not rehash:
        askable = [i for i, version in enumerate(versions) if isinstance(version, FileIdentity)]
        answers = table.recall_files([versions[i] for i in askable])  # type: ignore[misc]
        for i, answer in zip(askable, answers, strict=True):
            known[i] = answer
    records: list[ImageRecord] = []
    news: list[tuple[FileIdentity, FileRecord]] = []
    try:
        for record, version, old in zip(
            _records(names, versions, known, sources), versions, known, strict=True
        ):
            records.append(record)
            if (
                (old is None or old.content != record.content)
                and record.content is not None
                and isinstance(version, FileIdentity)
            ):
                news.append((version, FileRecord(record.content, _note(record))))
            if len(news) >= _REMEMBERED:
                table.remember_files(news)
                news.clear()
            report("hash", len(records), len(names))
    finally:  # a server that fails, or Ctrl-C: what was read is not read again
        table.remember_files(news)
    return records


def _records(
    names: Sequence[str],
    versions: Sequence[FileIdentity | str | None],
    known: Sequence[FileRecord | None],
    sources: Sources,
) -> Iterator[ImageRecord]:
    """Examine images in threads, yield them in order."""
    with _threads(_HASHING_THREADS) as pool, _threads(1) as in_order, _threads(REQUESTS) as remote:
        examined = [
            (
                remote if sources.remote(name) else in_order if sources.sequential(name) else pool
            ).submit(_examine, name, version, old, sources)
            for name, version, old in zip(names, versions, known, strict=True)
        ]
        for future in examined:
            yield future.result()


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads; what they have not begun when the block ends is left undone."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _versions(names: Sequence[str], sources: Sources) -> list[FileIdentity | str | None]:
    """Return the version of each image, or the reason why it cannot be determined."""
    with _threads(REQUESTS) as remote:
        asked = {
            place: remote.submit(_version, name, sources)
            for place, name in enumerate(names)
            if sources.remote(name)
        }
        return [
            asked[place].result() if place in asked else _version(name, sources)
            for place, name in enumerate(names)
        ]


def _version(name: str, sources: Sources) -> FileIdentity | str | None:
    """Return the version of an image, or the reason why it cannot be determined."""
    try:
        return sources.version(name)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _note(record: ImageRecord) -> str:
    return f"{record.width}x{record.height}"


def _examine(
    name: str, version: FileIdentity | str | None, known: FileRecord | None, sources: Sources
) -> ImageRecord:
    if isinstance(version, str):
        return ImageRecord(name, error=version)
    size = 0 if version is None else version.size
    if known is not None and re.fullmatch(r"\d+x\d+", known.note):  # else known as a weights file
        width, height = map(int, known.note.split("x"))
        return ImageRecord(name, known.content, width, height, size)
    try:
        data = sources.read(name)
        width, height = size_of(data)
    except ImageError as error:
        return ImageRecord(name, bytes=size, error=str(error))
    return ImageRecord(name, content_of(data), width, height, bytes_of(data))
