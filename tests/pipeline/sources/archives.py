"""Archives that tests write, and what sources find in them."""

import io
import random
import tarfile
import zipfile
from pathlib import Path

from lpipstore.pipeline.sources.sources import Sources

KINDS = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}
ARCHIVES = [".zip", *KINDS]


def blob(seed: int, size: int = 3000) -> bytes:
    """Bytes that nothing can compress, as those of an image file."""
    return random.Random(seed).randbytes(size)


FILES = {f"{folder}{n:02}.png": blob(n, 700 + n) for n, folder in enumerate(["", "b/", "a/"] * 4)}


def tar(path: Path, files, mode="w", form=tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, files, method=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make(path: Path, files=FILES) -> Path:
    if path.suffix == ".zip":
        return zipped(path, files)
    return tar(path, files, next(mode for end, mode in KINDS.items() if path.name.endswith(end)))


def read_all(path: Path) -> dict[str, bytes]:
    """Find, check that nothing is lost, and read by member."""
    sources = Sources()
    found = sources.find([path])
    assert found.unreadable == []
    return {
        member: sources.read(name) for name, member in zip(found.names, found.within, strict=True)
    }


def lost(path: Path) -> dict[str, str]:
    """What a search says is lost, by the name behind the archive's."""
    return {
        name.removeprefix(str(path)).removeprefix("#"): reason
        for name, reason in Sources().find([path]).unreadable
    }


class Table:
    """A file table that remembers everything, in memory."""

    def __init__(self):
        self.known = {}

    def recall_files(self, files):
        return [self.known.get(file) for file in files]

    def remember_files(self, entries):
        self.known.update(entries)
