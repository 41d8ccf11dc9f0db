"""Where a run is made that is to lie at a URL: in a folder of this machine, copied when finished.

Locks, resumption and files that are renamed into place need a disk, and a reader of the URL never
sees half a run.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import LpipstoreError, UsageError, setting
from ...cache.exchange.folder import RemoteError, digest_of
from ...pipeline.common.text import printable
from ...pipeline.runs.files import MANIFEST
from ...pipeline.runs.lock import RunLock
from ...pipeline.sources.names import is_url
from .remote import UrlFolder, open_folder
from .runcopy import Copied, manifests_at, need_same_run, send_run
from .screen import Screen
from .settings import cache_folder

_RUN = "run"  # the folder of the run, within the one that is locked
_TRIAL = "trial"


@dataclass
class Staged:
    """The folder in which a run is made.

    Attributes
    ----------
    folder
        Where it is made; after the ``with`` block of `staged_run`, where it is kept.
    place
        What people call it: the URL, or the folder.
    copied
        What was copied to a URL; None before that, and for a folder.
    """

    folder: Path
    place: str
    copied: Copied | None = None


@contextmanager
def staged_run(
    out: str | os.PathLike[str], screen: Screen, *, dry_run: bool = False, keep: bool = False
) -> Iterator[Staged]:
    """Yield the folder in which a run for `out` is made: `out` itself, unless it is a URL.

    For a URL, a folder in the cache that the URL decides, so that the same command goes on from
    there. When the ``with`` block ends, the run is copied and verified, and the folder removed. If
    the block or the copy fails, the folder stays.

    Parameters
    ----------
    out
        A path or a URL.
    dry_run
        Nothing is made: nothing is copied and nothing stays.
    keep
        Keep a copy of the run in a temporary folder, which the caller removes.

    Raises
    ------
    UsageError
        Another run or something else lies at the URL.
    LpipstoreError
        The URL cannot be read or written, or another process makes a run for it.
    """
    place = os.fspath(out)
    if not is_url(place):
        yield Staged(Path(place), place)
        return
    with open_folder(place) as remote:
        there = manifests_at(remote)
        home = cache_folder() / "runs" / digest_of(remote.url.encode())
        if dry_run:
            with tempfile.TemporaryDirectory(prefix="lpipstore-dry-") as scratch:
                begun = (home / _RUN).exists()
                folder = home / _RUN if begun else Path(scratch)
                with _taken_over({} if begun else there, folder, remote):
                    yield Staged(folder, remote.place)
            return
        _check_writable(remote)
        with _alone(home, remote) as folder:
            need_same_run(remote, there, folder)
            staged = Staged(folder, remote.place)
            screen.say(
                f"the run is made in {printable(str(folder))}, and copied to {remote.place} when "
                "it is finished"
            )
            with _taken_over({} if any(folder.iterdir()) else there, folder, remote):
                yield staged
            need_same_run(remote, manifests_at(remote), folder)
            staged.copied = _copy(folder, remote, screen)
            if keep:
                staged.folder = Path(tempfile.mkdtemp(prefix="lpipstore-run-"))
                for path in folder.iterdir():
                    shutil.move(path, staged.folder)


def _copy(folder: Path, remote: UrlFolder, screen: Screen) -> Copied:
    try:
        return send_run(folder, remote, screen.report)
    except RemoteError as error:
        raise RemoteError(
            f"{error.message} (the run is finished in {printable(str(folder))}, and the same "
            "command copies what is missing)"
        ) from error


@contextmanager
def _taken_over(there: Mapping[str, bytes], folder: Path, remote: UrlFolder) -> Iterator[None]:
    """Let a run go on from the manifests that lie at a URL, so that no other run begins there.

    What is said of the folder is then true of the URL.
    """
    for name, content in there.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    try:
        yield
    except UsageError as error:
        if not there:
            raise
        shown = printable(str(folder))
        raise UsageError(error.message.replace(shown, remote.place)) from error


@contextmanager
def _alone(home: Path, remote: UrlFolder) -> Iterator[Path]:
    """Yield the folder in which this process alone makes the run for a URL; remove it if it ended.

    It stays if the ``with`` block raises and more than a manifest is in it.
    """
    with closing(_lock(home, remote)):
        folder = home / _RUN
        folder.mkdir(exist_ok=True)
        try:
            yield folder
        except BaseException:
            if all(path.name == MANIFEST or path.is_dir() for path in folder.rglob("*")):
                shutil.rmtree(home)
            raise
        shutil.rmtree(home)


def _lock(home: Path, remote: UrlFolder) -> RunLock:
    while True:
        home.mkdir(parents=True, exist_ok=True)
        try:
            lock = RunLock(home)
        except BlockingIOError as error:
            raise LpipstoreError(
                f"another process is making a run for {remote.place}: wait for it, or choose "
                f"another {setting('out')}"
            ) from error
        except FileNotFoundError:
            continue  # whoever held it before has removed the folder
        if home.exists() and os.path.samestat(os.fstat(lock.fd), home.stat()):
            return lock
        lock.close()


def _check_writable(remote: UrlFolder) -> None:
    """Raise `RemoteError` unless objects can be written, before hours of work."""
    remote.write(_TRIAL, b"")
    remote.remove(_TRIAL)
