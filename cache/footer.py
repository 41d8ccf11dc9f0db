"""What sealing appends to a segment's rows: their key table, then the shard's index.

The key table holds the keys, checksums and sizes of the rows. Zarr never reads it; the store's
index can be rebuilt from it.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from .segmentfiles import SegmentFile, read_bytes
from .segments import CRC_BYTES, RECORD, Written, crc_bytes

_MAGIC = b"LPSTROW1"
_TRAILER = struct.Struct("<8sQI")  # magic, number of rows, crc32c of the key table
_TABLE_BYTES = RECORD.itemsize + 8  # a record and the row's size
_ABSENT = 2**64 - 1  # how the Zarr specification marks a chunk that is not in its shard


@dataclass
class Contents:
    """The contents of a segment: the record and the position of each row.

    `starts` and `sizes` (including the 4-byte crc32c) are in bytes. Row k is in slot k.
    """

    records: NDArray[np.void] = field(default_factory=lambda: np.empty(0, RECORD))
    sizes: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(cls, parts: Iterable[Written]) -> "Contents":
        """Join parts that were written one after the other."""
        listed = list(parts)
        if not listed:
            return cls()
        return cls(
            np.concatenate([part.records for part in listed]),
            np.concatenate([part.sizes for part in listed]),
        )

    def keys(self) -> list[bytes]:
        """Return the key of each row."""
        raw, size = self.records.tobytes(), RECORD.itemsize
        return [raw[at : at + 16] for at in range(0, len(raw), size)]

    @property
    def starts(self) -> NDArray[np.int64]:
        """Offset of the start of each row."""
        return np.cumsum(self.sizes) - self.sizes

    @property
    def end(self) -> int:
        """Offset of the end of the last row."""
        return int(self.sizes.sum())


def index_bytes(slots: int) -> int:
    """Return the bytes of a shard's index."""
    return 16 * slots + CRC_BYTES


def footer_bytes(rows: int, slots: int) -> int:
    """Return the bytes that sealing adds to a segment of that many rows."""
    return rows * _TABLE_BYTES + _TRAILER.size + index_bytes(slots)


def footer(contents: Contents, slots: int) -> bytes:
    """Return what sealing appends: key table, trailer, shard index."""
    table = contents.records.tobytes() + contents.sizes.astype("<i8").tobytes()
    trailer = _TRAILER.pack(_MAGIC, len(contents.records), google_crc32c.value(table))
    return table + trailer + shard_index(contents, slots, set())


def shard_index(contents: Contents, slots: int, absent: set[int]) -> bytes:
    """Return the index at the end of a shard: each row's position, without slots in `absent`."""
    index = np.full((slots, 2), _ABSENT, "<u8")
    index[: len(contents.sizes), 0] = contents.starts
    index[: len(contents.sizes), 1] = contents.sizes
    index[sorted(absent)] = _ABSENT
    return index.tobytes() + crc_bytes(index.tobytes())


def absent_slots(file: SegmentFile, rows: int, slots: int) -> set[int] | None:
    """Return which of a sealed segment's rows its shard index marks as absent; None if damaged."""
    at_index = file.size - index_bytes(slots)
    if at_index < 0:
        return None
    raw = bytes(read_bytes(file, index_bytes(slots), at_index))
    if crc_bytes(raw[:-CRC_BYTES]) != raw[-CRC_BYTES:]:
        return None
    starts = np.frombuffer(raw[:-CRC_BYTES], "<u8").reshape(slots, 2)[:rows, 0]
    absent: set[int] = set(np.flatnonzero(starts == _ABSENT).tolist())
    return absent


def read_footer(file: SegmentFile, slots: int) -> Contents | None:
    """Return the contents of a sealed segment by its key table, or None if that is damaged."""
    at_trailer = file.size - index_bytes(slots) - _TRAILER.size
    if at_trailer < 0:
        return None
    trailer = bytes(read_bytes(file, _TRAILER.size, at_trailer))
    if len(trailer) < _TRAILER.size:  # it was just emptied
        return None
    magic, rows, crc = _TRAILER.unpack(trailer)
    at_table = at_trailer - rows * _TABLE_BYTES
    if magic != _MAGIC or rows > slots or at_table < 0:
        return None
    table = bytes(read_bytes(file, at_trailer - at_table, at_table))
    if google_crc32c.value(table) != crc:
        return None
    split = rows * RECORD.itemsize
    contents = Contents(
        np.frombuffer(table[:split], RECORD), np.frombuffer(table[split:], "<i8").astype(np.int64)
    )
    return contents if contents.end == at_table else None
