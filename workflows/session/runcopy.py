"""Copy the folder of a run to a URL or from there: by content, verified, what ends it comes last.

A run that lies at a URL has ``manifest.json`` last. While it is being copied ``unfinished.json``
stands there in its place, with the same content, so that nothing else is written into the folder.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.errors import LpipstoreError, UsageError, setting
from ...cache.exchange.folder import Listed, RemoteError
from ...cache.exchange.requests import as_they_end
from ...pipeline.common.atomic import is_temporary, replacing
from ...pipeline.common.progress import Report
from ...pipeline.common.text import printable
from ...pipeline.runs.files import MANIFEST, SUMMARY, read_json
from ...pipeline.runs.writing import differences, writing_run
from .remote import UrlFolder
from .settings import show_bytes

_UNFINISHED = "unfinished.json"
_AT_ONCE = 4  # files on their way; parts of a large one are sent one after the other
_PART = 8 << 20  # bytes of a request that reads
_STAGE = "copy"


@dataclass(frozen=True)
class Copied:
    """Files of a run, how many of them were copied, and the bytes of those."""

    files: int
    copied: int
    bytes: int

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {"files": self.files, "copied": self.copied, "copied_bytes": self.bytes}

    def shown(self) -> str:
        """Return it as people read it."""
        return f"{self.copied:,} of {self.files:,} files, {show_bytes(self.bytes)}"


def manifests_at(remote: UrlFolder) -> dict[str, bytes]:
    """Return the manifests of the runs at a URL, by their names in the folder of a run.

    There is one, also of a run that is still being copied; of several heads, one in each folder.
    The dict is empty if nothing lies there.

    Raises
    ------
    UsageError
        Something else lies there.
    RemoteError
        The URL cannot be read.
    """
    listed = remote.list()
    found = {}
    for place in _places(listed):
        for name in (place + MANIFEST, place + _UNFINISHED):
            if name in listed and (content := remote.read(name)) is not None:
                found[place + MANIFEST] = content
                break
    if listed and not found:
        raise UsageError(
            f"{remote.place} is not empty and holds no run ({printable(min(listed))} is there): "
            f"choose a new place for {setting('out')}"
        )
    return found


def _places(listed: Iterable[str]) -> list[str]:
    """Return where manifests may be: in the folder itself, else in each folder in it."""
    if MANIFEST in listed or _UNFINISHED in listed:
        return [""]
    return sorted({f"{name.split('/')[0]}/" for name in listed if name.count("/") == 1})


def need_same_run(remote: UrlFolder, there: Mapping[str, bytes], folder: Path) -> None:
    """Raise `UsageError` unless the runs at a URL, if any, are those in a folder."""
    for name, content in there.items():
        if not (folder / name).exists():
            continue
        different = differences(_parsed(remote, name, content), read_json(folder / name))
        if different:
            raise UsageError(
                f"{remote.place} holds a different run ({'; '.join(different)}): choose another "
                f"place for {setting('out')}, or remove this one"
            )


def _parsed(remote: UrlFolder, name: str, content: bytes) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(content)
    except ValueError as error:
        raise LpipstoreError(f"{remote.place}/{name} is damaged: {error}") from error
    return manifest


def send_run(folder: Path, remote: UrlFolder, report: Report) -> Copied:
    """Copy a finished run, or a folder of several, to a URL; files that are there stay.

    Raises
    ------
    RemoteError
        The URL cannot be read or written, or a file did not arrive as it was; the same call sends
        only what has not arrived.
    """
    files = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not is_temporary(path)
    )
    ends = [name for name in files if name.rpartition("/")[2] == MANIFEST]
    rest = [name for name in files if name not in ends]
    listed = remote.list()
    digests: dict[str, str] = {}
    todo = []
    for name in rest:
        digests[name] = _md5(folder / name)
        if not _is_told(listed.get(name), folder / name, digests[name]):
            todo.append(name)
    begun = [name for name in ends if name not in listed]
    for name in begun:
        remote.write(_unfinished(name), (folder / name).read_bytes())
    report(_STAGE, 0, len(todo))
    sent = as_they_end(lambda name: remote.upload(name, folder / name), todo, _AT_ONCE)
    for done, _ in enumerate(sent, 1):
        report(_STAGE, done, len(todo))
    if todo:
        listed = remote.list()
        check = as_they_end(
            lambda name: _need_arrived(remote, listed, name, folder / name, digests[name]),
            todo,
            _AT_ONCE,
        )
        for _ in check:
            pass
    for name in ends:
        remote.write(name, (folder / name).read_bytes())
        remote.remove(_unfinished(name))
    sizes = [(folder / name).stat().st_size for name in (*todo, *ends)]
    return Copied(len(files), len(sizes), sum(sizes))


def _unfinished(manifest: str) -> str:
    return manifest.removesuffix(MANIFEST) + _UNFINISHED


def _is_told(one: Listed | None, path: Path, digest: str) -> bool:
    """Return whether the storage tells that an object has the content of a file.

    Tags of many storages are the MD5 of what was sent in one request.
    """
    return one is not None and one.size == path.stat().st_size and one.tag.strip('"') == digest


def _need_arrived(
    remote: UrlFolder, listed: Mapping[str, Listed], name: str, path: Path, digest: str
) -> None:
    """Raise `RemoteError` unless an object is a file's content; read it if no tag says so."""
    if _is_told(listed.get(name), path, digest):
        return
    size = listed[name].size if name in listed else 0
    if size == path.stat().st_size:
        read = hashlib.md5(usedforsecurity=False)
        for start in range(0, size, _PART):
            read.update(remote.read_range(name, start, min(_PART, size - start)))
        if read.hexdigest() == digest:
            return
    raise RemoteError(
        f"{remote.place}/{name} is not what was sent, in {size:,} of {path.stat().st_size:,} "
        "bytes: give the same command again"
    )


def _md5(path: Path) -> str:
    """Return the MD5 of a file, which object stores know of what they hold."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def fetch_run(remote: UrlFolder, folder: Path, report: Report) -> Copied:
    """Copy a finished run from a URL to a folder: a new one, or one that was begun.

    Raises
    ------
    UsageError
        There is no run at the URL, or the folder holds something else.
    LpipstoreError
        The run is still being copied, the URL cannot be read, or the folder cannot be written.
    """
    listed = remote.list()
    content = remote.read(MANIFEST) if MANIFEST in listed else None
    if content is None:
        if _UNFINISHED in listed:
            raise LpipstoreError(
                f"the run at {remote.place} is still being copied there, or that was interrupted: "
                "give its command again"
            )
        raise UsageError(f"{remote.place} is not a run of lpipstore: no {MANIFEST}")
    names = sorted(name for name in listed if name not in (MANIFEST, SUMMARY, _UNFINISHED))
    for name in names:
        if not {"", ".", ".."}.isdisjoint(name.split("/")) or "\\" in name:
            shown = printable(name)
            raise LpipstoreError(f"{remote.place} has an object {shown!r}, which no run has")
    with writing_run(folder, _parsed(remote, MANIFEST, content)):
        todo = [name for name in names if not _is_here(folder / name, listed[name])]
        for name in todo:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        report(_STAGE, 0, len(todo))
        fetched = as_they_end(
            lambda name: _fetch(remote, name, listed[name], folder / name), todo, _AT_ONCE
        )
        for done, _ in enumerate(fetched, 1):
            report(_STAGE, done, len(todo))
        if SUMMARY in listed:  # which says that a run is finished
            _fetch(remote, SUMMARY, listed[SUMMARY], folder / SUMMARY)
    copied = [MANIFEST, *todo, *({SUMMARY} & listed.keys())]
    return Copied(len(names) + 2, len(copied), sum(listed[name].size for name in copied))


def _is_here(path: Path, one: Listed) -> bool:
    """Return whether a file has the content of an object, by what the storage tells of it."""
    return path.is_file() and _is_told(one, path, _md5(path))


def _fetch(remote: UrlFolder, name: str, one: Listed, path: Path) -> None:
    """Copy an object to a file, whole or not at all."""
    with replacing(path) as file:
        for start in range(0, one.size, _PART):
            size = min(_PART, one.size - start)
            part = remote.read_range(name, start, size)
            if len(part) != size:
                raise RemoteError(
                    f"{remote.place}/{name} changed while it was copied: give the same command "
                    "again"
                )
            file.write(part)
