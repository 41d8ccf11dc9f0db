"""Hash each image file and read its size, without decoding pixels."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ...cache.index import FileIdentity, FileRecord
from ..common.progress import Report, silent
from .data import bytes_of, content_of, size_of
from .decode import ImageError
from .identity import FileTable
from .sources import Sources

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
    cannot be read come back with an `error`.
    """
    versions = [_version(name, sources) for name in names]
    known: list[FileRecord | None] = [None] * len(names)
    if not rehash:
        askable = [i for i, version in enumerate(versions) if isinstance(version, FileIdentity)]
        answers = table.recall_files([versions[i] for i in askable])  # type: ignore[misc]
        for i, answer in zip(askable, answers, strict=True):
            known[i] = answer
    records: list[ImageRecord] = []
    news: list[tuple[FileIdentity, FileRecord]] = []
    with ThreadPoolExecutor(_HASHING_THREADS) as pool, ThreadPoolExecutor(1) as in_order:
        examined = [
            (in_order if sources.sequential(name) else pool).submit(
                _examine, name, version, old, sources
            )
            for name, version, old in zip(names, versions, known, strict=True)
        ]
        for future, version, old in zip(examined, versions, known, strict=True):
            record = future.result()
            records.append(record)
            if (
                (old is None or old.content != record.content)
                and record.content is not None
                and isinstance(version, FileIdentity)
            ):
                news.append((version, FileRecord(record.content, _note(record, version))))
            report("hash", len(records), len(names))
    table.remember_files(news)
    return records


def _version(name: str, sources: Sources) -> FileIdentity | str | None:
    """Return the version of an image, or the reason why it cannot be determined."""
    try:
        return sources.version(name)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _note(record: ImageRecord, version: FileIdentity) -> str:
    """Return the size of an image, and its bytes where they are not those of the whole file."""
    size = f"{record.width}x{record.height}"
    return size if record.bytes == version.size else f"{size} {record.bytes}"


def _examine(
    name: str, version: FileIdentity | str | None, known: FileRecord | None, sources: Sources
) -> ImageRecord:
    if isinstance(version, str):
        return ImageRecord(name, error=version)
    size = 0 if version is None else version.size
    note = known and re.fullmatch(r"(\d+)x(\d+)(?: (\d+))?", known.note)
    if known and note:  # else unknown, or known as a weights file
        return ImageRecord(name, known.content, int(note[1]), int(note[2]), int(note[3] or size))
    try:
        data = sources.read(name)
        width, height = size_of(data)
    except ImageError as error:
        return ImageRecord(name, bytes=size, error=str(error))
    return ImageRecord(name, content_of(data), width, height, bytes_of(data))
