"""Which rows lie in which object of a remote folder, as Parquet files.

Each push adds a catalogue of its own, named by its digest, once everything in it has arrived.
A reader takes the union of all, so that pushes at the same time lose nothing on any storage. When
there are many catalogues, a push merges them: it writes their union as one, then removes the ones
that it has merged.

A catalogue has the columns ``key`` (16 bytes), ``pool``, ``segment`` (digest), ``offset``,
``length`` (bytes of the row as stored, without its crc32c) and ``checksum`` (xxh3-64, seeded with
the key). Its metadata describe the pools and give bytes and tag of each segment.
"""

import io
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LpipstoreError
from ..footer import Contents
from ..keys import FORMAT_VERSION, PoolSpec
from ..keytable import SLOT_BITS, SLOT_MASK, KeyTable
from ..pools import Pool
from ..sealed import keys_of
from ..segments import CRC_BYTES, MOST_SLOTS, RECORD
from .folder import (
    CATALOGUES,
    RemoteError,
    RemoteFolder,
    catalogue_name,
    digest_of,
    is_catalogue,
    segment_name,
)
from .kept import KeptCatalogues

if TYPE_CHECKING:
    import pyarrow as pa

MOST_CATALOGUES = 8
_ATTEMPTS = 5  # a catalogue may be merged into another one between listing and reading it
_FACTS = b"lpipstore"

Warn = Callable[[str], None]


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
