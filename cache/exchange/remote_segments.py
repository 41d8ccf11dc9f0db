"""Segments of a remote folder, and the Parquet files that list their rows: catalogues.

A catalogue has the columns ``key`` (16 bytes), ``pool``, ``segment`` (digest), ``offset``,
``length`` (bytes of the row as stored, without its crc32c) and ``checksum`` (xxh3-64, seeded with
the key). Its metadata describe the pools and give bytes and tag of each segment.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..footer import Contents
from ..keys import FORMAT_VERSION, PoolSpec
from ..pools import Pool
from ..sealed import keys_of
from ..segments import CRC_BYTES, MOST_SLOTS, RECORD
from .folder import RemoteError, segment_name

if TYPE_CHECKING:
    import pyarrow as pa

_FACTS = b"lpipstore"


@dataclass(frozen=True)
class RemoteSegment:
    """A segment of a remote folder: where its rows lie in it.

    Attributes
    ----------
    pool
        The pool of its rows; its id means nothing.
    digest
        Of the object's bytes.
    size
        Bytes of the object.
    offsets, lengths
        Of each row as stored, in bytes, without its crc32c. Shape (rows,).
    records
        Key and checksum of each row (dtype `lpipstore.cache.segments.RECORD`).
    tag
        What the storage told of the object when it was known to be whole; see `Listed`.
    """

    pool: Pool
    digest: str
    size: int
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    records: NDArray[np.void]
    tag: str = ""

    @classmethod
    def of(
        cls, pool: Pool, digest: str, size: int, contents: Contents, which: NDArray[np.bool_]
    ) -> "RemoteSegment":
        """Return a segment with the chosen rows of its contents."""
        starts, sizes = contents.starts[which], contents.sizes[which] - CRC_BYTES
        return cls(pool, digest, size, starts, sizes, contents.records[which])

    @property
    def name(self) -> str:
        """The name of its object."""
        return segment_name(self.pool.folder, self.digest)

    @property
    def keys(self) -> list[bytes]:
        """The key of each row, 16 bytes."""
        return keys_of(self.records)

    @property
    def spec(self) -> PoolSpec:
        """The kind of its rows."""
        return self.pool.spec


def encode(segments: Sequence[RemoteSegment], written: int) -> bytes:
    """Return a catalogue of segments as the bytes of a Parquet file.

    `written` is the time in nanoseconds since 1970.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = np.concatenate([segment.records for segment in segments])
    keys = np.stack([records["hi"], records["lo"]], axis=1).astype("<u8").tobytes()
    key_type = pa.binary(16)
    counts = [len(segment.records) for segment in segments]
    pools = sorted({segment.pool.folder for segment in segments})
    pool_of = np.repeat([pools.index(segment.pool.folder) for segment in segments], counts)
    segment_of = np.repeat(np.arange(len(segments)), counts)
    facts = {
        "format": FORMAT_VERSION,
        "written": written,
        "pools": {segment.pool.folder: _describe(segment.pool) for segment in segments},
        "segments": [[s.pool.folder, s.digest, s.size, len(s.records)] for s in segments],
        "tags": {segment.name: segment.tag for segment in segments if segment.tag},
    }
    table = pa.table(
        {
            "key": pa.FixedSizeBinaryArray.from_buffers(
                key_type, len(records), [None, pa.py_buffer(keys)]
            ),
            "pool": pa.DictionaryArray.from_arrays(pa.array(pool_of, pa.int32()), pools),
            "segment": pa.DictionaryArray.from_arrays(
                pa.array(segment_of, pa.int32()), [segment.digest for segment in segments]
            ),
            "offset": np.concatenate([segment.offsets for segment in segments]),
            "length": np.concatenate([segment.lengths for segment in segments]),
            "checksum": np.ascontiguousarray(records["check"]),
        }
    ).replace_schema_metadata({_FACTS: json.dumps(facts).encode()})
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", use_dictionary=["pool", "segment"])
    return file.getvalue()


def decode(data: bytes, where: str) -> tuple[int, list[RemoteSegment]]:
    """Return when a catalogue was written (ns since 1970), and its segments.

    Raises
    ------
    RemoteError
        It is of another format version, or it is no catalogue.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(data))
        facts = json.loads(table.schema.metadata[_FACTS])
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RemoteError(f"{where} is no catalogue of rows: {error}") from error
    if facts["format"] != FORMAT_VERSION:
        raise RemoteError(
            f"{where} has format {facts['format']}, and this lpipstore reads format "
            f"{FORMAT_VERSION}: update lpipstore, or push to another URL"
        )
    pools = {folder: _pool(folder, told) for folder, told in facts["pools"].items()}
    records = np.empty(len(table), RECORD)
    records["hi"], records["lo"] = _halves(table["key"]).T
    records["check"] = table["checksum"].to_numpy()
    offsets, lengths = table["offset"].to_numpy(), table["length"].to_numpy()
    tags = facts.get("tags", {})
    segments, start = [], 0
    for folder, digest, size, rows in facts["segments"]:
        part = slice(start, start := start + rows)
        where_rows = offsets[part], lengths[part], records[part]
        tag = tags.get(segment_name(folder, digest), "")
        segments.append(RemoteSegment(pools[folder], digest, size, *where_rows, tag))
    return int(facts["written"]), segments


def _halves(keys: "pa.ChunkedArray") -> NDArray[np.uint64]:
    """Return the halves of keys, shape (n, 2)."""
    parts = [
        np.frombuffer(part.buffers()[1], "<u8").reshape(-1, 2)[part.offset :][: len(part)]
        for part in keys.chunks
    ]
    return np.concatenate([np.empty((0, 2), np.uint64), *parts])


def _describe(pool: Pool) -> dict[str, Any]:
    names = ("name", "length", "dtype", "recipe", "codec", "slots")
    return {name: getattr(pool, name) for name in names}


def _pool(folder: str, told: Mapping[str, Any]) -> Pool:
    spec = PoolSpec(told["name"], told["length"], told["dtype"], told["recipe"])
    return Pool.of(folder, spec, told["codec"], min(int(told["slots"]), MOST_SLOTS))
