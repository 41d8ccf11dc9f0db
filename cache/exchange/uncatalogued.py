"""Segments in a remote folder that no catalogue has: of pushes that were killed, or after a loss.

Each object ends with the keys, checksums and sizes of its rows, so that any push can enter it in a
catalogue, whoever sent it.
"""

from collections.abc import Mapping

import numpy as np

from ..footer import footer_bytes, read_footer
from ..pools import pool_of
from ..segmentfiles import Buffers
from ..segments import MOST_SLOTS
from .catalogue import Catalogue
from .folder import Listed, RemoteFolder, array_name, is_segment
from .remote_segments import RemoteSegment
from .requests import as_they_end

_AT_ONCE = 8  # requests on their way


class _Ending:
    """The last bytes of an object, as a `lpipstore.cache.segmentfiles.SegmentFile`."""

    def __init__(self, size: int, ending: bytes) -> None:
        self.size = size
        self._ending = ending

    def read_at(self, buffers: Buffers, offset: int) -> int:
        """Fill buffers from `offset` of the object on, as far as its ending is known."""
        at, done = offset - (self.size - len(self._ending)), 0
        for buffer in buffers if at >= 0 else ():
            room = memoryview(buffer).cast("B")
            part = self._ending[at : at + len(room)]
            room[: len(part)] = part
            at, done = at + len(part), done + len(part)
        return done


def find_uncatalogued(
    folder: RemoteFolder, catalogue: Catalogue, listed: Mapping[str, Listed]
) -> list[RemoteSegment]:
    """Return the segments among the `listed` objects that have rows of their own.

    Objects that are truncated are left out.

    Raises
    ------
    RemoteError
        They cannot be read.
    """
    known = {segment.name for segment in catalogue.segments}
    names = sorted(name for name in listed if is_segment(name) and name not in known)
    found: list[RemoteSegment] = []
    for _, segment in as_they_end(lambda n: _read(folder, n, listed[n].size), names, _AT_ONCE):
        if segment is not None and catalogue.missing(segment.keys):
            found.append(segment)
    return sorted(found, key=lambda segment: segment.name)


def _read(folder: RemoteFolder, name: str, size: int) -> RemoteSegment | None:
    """Read where the rows of one segment lie from its ending; None if it is damaged."""
    pool_name, digest, _ = name.split("/")
    metadata = folder.read(array_name(pool_name, digest))
    pool = None if metadata is None else pool_of(pool_name, metadata)
    if pool is None or pool.slots > MOST_SLOTS:
        return None
    count = min(size, footer_bytes(pool.slots, pool.slots))
    contents = read_footer(_Ending(size, folder.read_range(name, size - count, count)), pool.slots)
    if contents is None:
        return None
    everything = np.ones(len(contents.records), bool)
    return RemoteSegment.of(pool, digest, size, contents, everything)
