"""Hash each image file and read its size, without decoding pixels."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

from ...cache.index import FileIdentity, FileRecord
from ..common.pools import submit
from ..common.progress import Report, silent
from ..sources.formats.objects import REQUESTS
from ..sources.identity import FileTable
from ..sources.source import ImageError
from ..sources.sources import Sources
from .data import bytes_of, content_of, header_of

_ANY, _IN_ORDER, _REMOTE = "any", "in order", "remote"  # threads that read images
_REMEMBERED = 1000  # images after which what is known of them is kept
_HASHING_THREADS = 4  # reading waits for the disk and hashing releases the interpreter lock
_MOST_AT_ONCE = 64  # images examined by one thread before another has a turn


@dataclass(frozen=True)
class ImageRecord:
    """One image of a collection as found by the survey, before decoding.

    `path` is the image's name: a path, or a place and a member. `width` and `height` are in pixels
    as displayed (EXIF orientation applied), `bytes` is the size of the file or of the pixels,
    `content` the xxh3-128 of either, `profile` describes a colour profile other than sRGB. If the
    image cannot be read, `content` is None and `error` gives the reason.
    """

    path: str
    content: bytes | None = None
    width: int = 0
    height: int = 0
    bytes: int = 0
    error: str | None = None
    profile: str = ""


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
    Where the system starts no threads, the caller's thread does the work.
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

    def examine(part: Sequence[int]) -> list[ImageRecord]:
        return [_examine(names[i], versions[i], known[i], sources) for i in part]

    with _threads(_HASHING_THREADS) as pool, _threads(1) as in_order, _threads(REQUESTS) as remote:
        pools = {_ANY: pool, _IN_ORDER: in_order, _REMOTE: remote}
        examined = [submit(pools[way], examine, part) for way, part in _parts(names, sources)]
        for future in examined:
            yield from future.result()


def _parts(names: Sequence[str], sources: Sources) -> Iterator[tuple[str, list[int]]]:
    """Yield images to examine in one go, and the threads that do so.

    Small images are hashed more quickly than threads take turns.
    """
    most = max(1, min(_MOST_AT_ONCE, len(names) // (_HASHING_THREADS * _MOST_AT_ONCE)))

    def way(index: int) -> str:
        if sources.remote(names[index]):
            return _REMOTE
        return _IN_ORDER if sources.sequential(names[index]) else _ANY

    for threads, group in groupby(range(len(names)), way):
        numbers, step = list(group), 1 if threads == _REMOTE else most
        for start in range(0, len(numbers), step):
            yield threads, numbers[start : start + step]


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
            place: submit(remote, lambda name: _version(name, sources), name)
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
    except ImageError as error:
        return str(error)


def _note(record: ImageRecord) -> str:
    return f"{record.width}x{record.height} {record.bytes} {record.profile}"


def _examine(
    name: str, version: FileIdentity | str | None, known: FileRecord | None, sources: Sources
) -> ImageRecord:
    if isinstance(version, str):
        return ImageRecord(name, error=version)
    size = 0 if version is None else version.size
    noted = known and re.fullmatch(r"(\d+)x(\d+) (\d+) (.*)", known.note)
    if known and noted:  # else unknown, or known as a weights file
        width, height, size = map(int, noted.groups()[:3])
        return ImageRecord(name, known.content, width, height, size, profile=noted[4])
    try:
        data = sources.read(name)
        header = header_of(data)
    except ImageError as error:
        return ImageRecord(name, bytes=size, error=str(error))
    return ImageRecord(
        name,
        content_of(data),
        header.width,
        header.height,
        bytes_of(data),
        profile=header.profile,
    )
