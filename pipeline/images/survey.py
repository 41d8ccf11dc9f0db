"""Hash each image file and read its size, without decoding pixels."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ...cache.index import FileIdentity, FileRecord
from ..common.progress import Report, silent
from .decode import ImageError, content_hash, displayed_size, read_file
from .identity import FileTable, identify

_HASHING_THREADS = 4  # reading waits for the disk and hashing releases the interpreter lock


@dataclass(frozen=True)
class ImageRecord:
    """One image of a collection as found by the survey, before decoding.

    `width` and `height` are in pixels as displayed (EXIF orientation applied), `bytes` is the file
    size, `content` the xxh3-128 of its bytes. If the file cannot be read or is not an image,
    `content` is None and `error` gives the reason.
    """

    path: str
    content: bytes | None = None
    width: int = 0
    height: int = 0
    bytes: int = 0
    error: str | None = None


def survey(
    paths: Sequence[str], table: FileTable, *, rehash: bool = False, report: Report = silent
) -> list[ImageRecord]:
    """Hash each file and read its width and height, without decoding pixels.

    Files whose path, size, modification time and inode match the table are not opened, unless
    `rehash` is set. Files that cannot be read or are not images come back with an `error`.
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
    """Return the identity of a file, or the reason why it cannot be determined."""
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
