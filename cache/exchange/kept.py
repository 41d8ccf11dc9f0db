"""Catalogues of remote folders that stay on this machine, so that each is fetched once.

Their names say what is in them, so that one which is listed and kept need not be asked for.
"""

import os
from collections.abc import Callable
from pathlib import Path

from .folder import CATALOGUES, catalogue_name, digest_of

_MOST_BYTES = 512_000_000


class KeptCatalogues:
    """A folder of catalogues under their digests; those used least recently go when it is full.

    A file that cannot be read, or is damaged, is one that is not there. One that cannot be written
    is told to `warn`: it is fetched again the next time.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None], most: int = _MOST_BYTES) -> None:
        self._folder = folder
        self._warn = warn
        self._most = most

    def get(self, name: str) -> bytes | None:
        """Return a catalogue by its name in a remote folder; None if it is not kept."""
        path = self._path(name)
        try:
            data = path.read_bytes()
            if catalogue_name(digest_of(data)) != name:
                return None
            os.utime(path)
        except OSError:
            return None
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keep a catalogue that was fetched, unless it alone is more than all may take."""
        path = self._path(name)
        if len(data) > self._most:
            return
        scratch = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(data)
            scratch.replace(path)
            self._bound()
        except OSError as error:
            self._warn(
                f"a catalogue cannot be kept in {self._folder} ({error.strerror or error}), and is "
                "fetched again the next time"
            )

    def _path(self, name: str) -> Path:
        return self._folder / name.removeprefix(CATALOGUES)

    def _bound(self) -> None:
        """Remove what was used least recently until the rest may stay."""
        files = [(entry.stat(), entry.path) for entry in os.scandir(self._folder)]
        files.sort(key=lambda file: file[0].st_mtime_ns)
        taken = sum(stat.st_size for stat, _ in files)
        for stat, path in files:
            if taken <= self._most:
                break
            Path(path).unlink(missing_ok=True)
            taken -= stat.st_size
