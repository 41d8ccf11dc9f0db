"""What is sent as one object: a segment as it lies in the store, or the rows of several small ones.

Workers of a cluster write a segment for each batch. Of such segments, rows are put together into
segments of the usual size, so that readers need few requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..footer import Contents, footer
from ..pools import Pool
from ..sealed import SealedSegment
from ..segments import Written

Wanted = tuple[SealedSegment, NDArray[np.bool_]]
"""A segment, and which of its rows are to be sent. Shape (rows,)."""


@dataclass(frozen=True)
class Packed:
    """The bytes of an object, what lies in it, and which of its rows are good and wanted."""

    data: bytes
    contents: Contents
    good: NDArray[np.bool_]
    corrupt: int


@dataclass(frozen=True)
class Parcel:
    """Segments of one pool whose rows go into one object."""

    parts: Sequence[Wanted]

    @property
    def pool(self) -> Pool:
        """The pool of all its rows."""
        return self.parts[0][0].pool

    @property
    def rows(self) -> int:
        """How many rows are to be sent."""
        return sum(int(wanted.sum()) for _, wanted in self.parts)

    def pack(self) -> Packed | None:
        """Read and verify the rows; None if the segment has left the store.

        Raises
        ------
        OSError
            A file cannot be read.
        """
        if len(self.parts) == 1:
            return self._as_it_is()
        pieces: list[memoryview] = []
        kept: list[Written] = []
        corrupt = 0
        for segment, wanted in self.parts:
            read = segment.read()
            if read is None:
                continue
            data, sound = read
            corrupt += int((segment.current & ~sound).sum())
            contents, which = segment.contents, np.flatnonzero(sound & wanted)
            view = memoryview(data)
            starts, sizes = contents.starts[which], contents.sizes[which]
            places = zip(starts.tolist(), sizes.tolist(), strict=True)
            pieces += [view[start : start + size] for start, size in places]
            kept.append(Written(contents.records[which], sizes))
        merged = Contents.of(kept)
        data = b"".join([*pieces, footer(merged, self.pool.slots)])
        return Packed(data, merged, np.ones(len(merged.records), bool), corrupt)

    def _as_it_is(self) -> Packed | None:
        segment, wanted = self.parts[0]
        read = segment.read()
        if read is None:
            return None
        data, sound = read
        corrupt = int((segment.current & ~sound).sum())
        return Packed(data, segment.contents, sound & wanted, corrupt)


def parcels(segments: Sequence[Wanted]) -> list[Parcel]:
    """Put segments that are less than half full together, up to a full one; keep the order.

    A parcel stands where its first segment stood.
    """
    made: list[list[Wanted]] = []
    begun: dict[str, tuple[list[Wanted], int]] = {}
    for segment, wanted in segments:
        name, slots, rows = segment.pool.folder, segment.pool.slots, int(wanted.sum())
        if 2 * len(segment.contents.records) >= slots:
            made.append([(segment, wanted)])
            continue
        parcel, held = begun.get(name, ([], slots))
        if held + rows > slots:
            parcel, held = [], 0
            made.append(parcel)
        parcel.append((segment, wanted))
        begun[name] = parcel, held + rows
    return [Parcel(parts) for parts in made]
