"""Which rows lie in which object of a remote folder.

Each push adds a catalogue of its own, named by its digest, once everything in it has arrived.
A reader takes the union of all, so that pushes at the same time lose nothing on any storage. When
there are many catalogues, a push merges them: it writes their union as one, then removes the ones
that it has merged.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import LpipstoreError
from ..keys import PoolSpec
from ..keytable import SLOT_BITS, SLOT_MASK, KeyTable
from .folder import (
    CATALOGUES,
    RemoteError,
    RemoteFolder,
    catalogue_name,
    digest_of,
    is_catalogue,
)
from .kept import KeptCatalogues
from .remote_segments import RemoteSegment, decode, encode

MOST_CATALOGUES = 8
_ATTEMPTS = 5  # a catalogue may be merged into another one between listing and reading it

Warn = Callable[[str], None]


@dataclass
class Catalogue:
    """Segments of a remote folder, and where each key's row lies.

    Attributes
    ----------
    segments
        Those pushed last come first; of one push, those that were used last.
    files
        Names of the catalogues that were read.
    newest
        When the last of them was written, in nanoseconds since 1970.
    """

    segments: list[RemoteSegment] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    newest: int = 0

    def __post_init__(self) -> None:
        self._table = KeyTable()
        self._table.add_all(
            [(number, 0, segment.records) for number, segment in self._oldest_first()]
        )

    def _oldest_first(self) -> list[tuple[int, RemoteSegment]]:
        """Number the segments; of a key that lies in two, the one pushed last is taken."""
        return list(enumerate(self.segments))[::-1]

    def find(self, keys: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the number of each key's segment (-1 if unknown), and of the row in it."""
        places, _ = self._table.find(list(keys))
        return places >> SLOT_BITS, places & SLOT_MASK

    def has(self, spec: PoolSpec) -> bool:
        """Return whether there are rows of a kind."""
        return any(segment.pool.digest == spec.digest for segment in self.segments)

    def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the keys that the catalogue does not know, in the given order."""
        numbers, _ = self.find(keys)
        return [keys[at] for at in np.flatnonzero(numbers < 0).tolist()]


def read_catalogue(
    folder: RemoteFolder, warn: Warn, kept: KeptCatalogues | None = None
) -> Catalogue:
    """Read all catalogues of a remote folder as one; those in `kept` are not fetched again.

    One that is damaged is named to `warn` and left out: its digest is not its name.

    Raises
    ------
    RemoteError
        The folder cannot be read, or a catalogue is of another format version.
    """
    read: dict[str, tuple[int, list[RemoteSegment]]] = {}
    for _ in range(_ATTEMPTS):
        names = {name for name in folder.list(CATALOGUES) if is_catalogue(name)}
        read = {name: held for name, held in read.items() if name in names}
        gone = False
        for name in sorted(names - read.keys()):
            data = None if kept is None else kept.get(name)
            if data is not None:
                read[name] = decode(data, name)
                continue
            data = folder.read(name)
            where = f"{folder.place}/{name}"
            if data is None:
                gone = True
            elif catalogue_name(digest_of(data)) != name:
                warn(
                    f"{where} is damaged and left out: remove it, and push again, which writes "
                    "its rows into a new one"
                )
            else:
                read[name] = decode(data, where)
                if kept is not None:
                    kept.put(name, data)
        if not gone:
            break
    else:
        raise RemoteError(f"the catalogues of {folder.place} are being changed all the time")
    newest = sorted(read.values(), key=lambda held: held[0], reverse=True)
    return Catalogue(
        _distinct(s for _, held in newest for s in held),
        sorted(read),
        newest[0][0] if newest else 0,
    )


def _distinct(segments: Iterable[RemoteSegment]) -> list[RemoteSegment]:
    """Leave out segments that say nothing new, as pushes at the same time may list them."""
    kept: dict[tuple[str, bytes], RemoteSegment] = {}
    for segment in segments:
        kept.setdefault((segment.name, segment.records.tobytes()), segment)
    return list(kept.values())


def add_catalogue(
    folder: RemoteFolder, before: Catalogue, segments: Sequence[RemoteSegment]
) -> int:
    """Write the catalogue of segments that have arrived; return its bytes.

    If there are many catalogues, the union of what is in `before` is written instead, and they are
    removed.
    """
    merge = len(before.files) + 1 > MOST_CATALOGUES
    written = max(time.time_ns(), before.newest + 1)  # clocks differ from machine to machine
    data = encode([*segments, *(before.segments if merge else ())], written)
    name = catalogue_name(digest_of(data))
    folder.write(name, data)
    for old in before.files if merge else ():
        if old != name:
            folder.remove(old)
    return len(data)


def need_catalogue(folder: RemoteFolder, catalogue: Catalogue) -> None:
    """Raise `LpipstoreError` if nothing was ever pushed to a folder, or its catalogue is gone."""
    if not catalogue.files:
        raise LpipstoreError(
            f"there is no catalogue of rows in {folder.place}: nothing was pushed there, or the "
            "catalogue was removed; `lpipstore store push` makes it, and copies only segments "
            "that are not there"
        )
