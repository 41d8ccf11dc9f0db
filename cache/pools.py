"""Pools, their segments, and the Zarr metadata: a group with one array for each kind of row."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .disk import write_json
from .errors import StoreError
from .keys import FILL_VALUES, FORMAT_VERSION, SCALE_FACTORS, PoolSpec
from .segments import CRC_BYTES, MOST_SLOTS, Compressor

if TYPE_CHECKING:
    import zarr

SEGMENT_BYTES = 64 << 20
SHARE_OF_LIMIT = 16  # a segment takes at most 1/16 of the store's limit
COMPRESSOR_BYTES = 16  # what blosc adds to a row that does not shrink
_OURS = "lpipstore"

Decompressor = Callable[[memoryview, NDArray[np.generic]], None]


@dataclass(frozen=True)
class Pool:
    """One pool in the index: its id, its kind of row, and the number of rows per shard (`slots`).

    `codec` is ``""`` (uncompressed) or ``"lz4"`` (byte shuffle, then lz4).
    """

    id: int
    folder: str
    name: str
    digest: bytes
    length: int
    dtype: str
    recipe: dict[str, str]
    codec: str
    slots: int

    @classmethod
    def of(cls, folder: str, spec: PoolSpec, codec: str, slots: int) -> "Pool":
        """Return a pool that has no id in an index yet (`id` is 0)."""
        return cls(
            id=0,
            folder=folder,
            name=spec.name,
            digest=spec.digest,
            length=spec.length,
            dtype=spec.dtype,
            recipe=dict(spec.recipe),
            codec=codec,
            slots=slots,
        )

    @property
    def spec(self) -> PoolSpec:
        """The kind of its rows."""
        return PoolSpec(self.name, self.length, self.dtype, self.recipe)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, uncompressed."""
        return self.length * np.dtype(self.dtype).itemsize

    @property
    def stride(self) -> int:
        """Bytes from one row to the next in an uncompressed segment."""
        return self.row_bytes + CRC_BYTES

    @cached_property
    def compress(self) -> Compressor | None:
        """The function that turns a row into the bytes to be stored, or None."""
        return compressor() if self.codec else None

    @cached_property
    def decompress(self) -> Decompressor | None:
        """The function that turns stored bytes into a row, or None."""
        return decompressor() if self.codec else None


@dataclass(frozen=True)
class Segment:
    """A segment: its id in the index, its pool, and its number within the pool."""

    id: int
    pool: Pool
    number: int

    @property
    def key(self) -> str:
        """Its key once it is sealed; see `segment_key`."""
        return segment_key(self.pool.folder, self.number)

    @property
    def open_name(self) -> str:
        """The name of its file while it is being written."""
        return f"{self.pool.folder}.{self.number}"

    @staticmethod
    def of_open_name(name: str) -> tuple[str, int] | None:
        """Return (pool folder, number) of an `open_name`; None for any other file name."""
        folder, _, number = name.rpartition(".")
        ours = is_pool_folder(folder) and number.isascii() and number.isdecimal()
        return (folder, int(number)) if ours else None


def compressor() -> Compressor:
    """Return the function that compresses a row."""
    from numcodecs import blosc

    def compress(row: NDArray[np.generic]) -> bytes:
        stored: bytes = blosc.compress(row, b"lz4", 5, blosc.SHUFFLE, 0)
        return stored

    return compress


def decompressor() -> Decompressor:
    """Return the function that turns the bytes of a compressed row into the row."""
    from numcodecs import blosc

    def decompress(stored: memoryview, row: NDArray[np.generic]) -> None:
        blosc.decompress(stored, row)

    return decompress


def pool_folder(spec: PoolSpec, codec: str) -> str:
    """Return the folder name of a pool; compressed rows have a folder of their own."""
    return f"{spec.folder}-{codec}" if codec else spec.folder


def slots_for(row_bytes: int, limit: int | None) -> int:
    """Return how many rows a segment holds, given the row's bytes and the store's limit."""
    room = SEGMENT_BYTES if limit is None else min(SEGMENT_BYTES, limit // SHARE_OF_LIMIT)
    return max(1, min(MOST_SLOTS, room // (row_bytes + CRC_BYTES)))


def segment_key(folder: str, number: int) -> str:
    """Return the key of a pool's segment: the chunk key of a shard, below the pool's folder."""
    return f"{folder}/c.{number}.0"


def parse_key(key: str) -> tuple[str, int] | None:
    """Return the pool folder and the number of a `segment_key`; None for any other name."""
    folder, _, chunk = key.partition("/")
    number = chunk.removeprefix("c.").removesuffix(".0")
    ours = is_pool_folder(folder) and number.isdecimal()
    return (folder, int(number)) if ours and key == segment_key(folder, int(number)) else None


def array_metadata(spec: PoolSpec, codec: str, slots: int) -> dict[str, Any]:
    """Return the metadata that zarr-python writes for a pool's array without rows."""
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec

    packing: list[Any] = [Crc32cCodec()]
    if codec:
        typesize = np.dtype(spec.dtype).itemsize
        packing.insert(0, BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=typesize))
    files: dict[str, Any] = {}
    attributes: dict[str, Any] = {
        "recipe": dict(spec.recipe),
        _OURS: {
            "format": FORMAT_VERSION,
            "name": spec.name,
            "digest": spec.digest.hex(),
            "codec": codec,
        },
    }
    if spec.dtype != "float32":
        attributes["scale_factor"] = SCALE_FACTORS[spec.dtype]
    zarr.create_array(
        store=zarr.storage.MemoryStore(files),
        shape=(0, spec.length),
        shards=(slots, spec.length),
        chunks=(1, spec.length),
        dtype=spec.dtype,
        fill_value=FILL_VALUES[spec.dtype],
        filters=None,
        compressors=packing,
        attributes=attributes,
        dimension_names=["row", "value"],
        chunk_key_encoding={"name": "default", "separator": "."},
    )
    metadata: dict[str, Any] = json.loads(files["zarr.json"].to_bytes())
    return metadata


def read_pool(folder: Path) -> Pool | None:
    """Read a pool from its Zarr metadata; None if the metadata is damaged or not ours.

    The result has no id in the index (`id` is 0).
    """
    try:
        raw = (folder / "zarr.json").read_bytes()
    except OSError:
        return None
    return pool_of(folder.name, raw)


def pool_of(folder: str, raw: bytes) -> Pool | None:
    """Return the pool that Zarr metadata describe; see `read_pool`."""
    try:
        metadata = json.loads(raw)
        ours = metadata["attributes"][_OURS]
        pool = Pool(
            id=0,
            folder=folder,
            name=ours["name"],
            digest=bytes.fromhex(ours["digest"]),
            length=int(metadata["shape"][1]),
            dtype=metadata["data_type"],
            recipe=dict(metadata["attributes"]["recipe"]),
            codec=ours["codec"],
            slots=int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0]),
        )
        spec = pool.spec
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return pool if ours["format"] == FORMAT_VERSION and spec.digest == pool.digest else None


def describe(pools: Path, pool: Pool, segments: int) -> None:
    """Rewrite the metadata of a pool, with an array long enough for its segments."""
    folder = pools / pool.folder
    folder.mkdir(exist_ok=True)
    spec = pool.spec
    write_json(folder / "zarr.json", array_metadata(spec, pool.codec, pool.slots))
    grow(folder, segments, pool.slots)


def grow(folder: Path, segments: int, slots: int) -> None:
    """Make the array of a pool long enough for its segments; never shorten it.

    It grows to 16 segments, then doubles, so that the metadata file is rarely replaced: that makes
    some file systems wait for the disk. Rows that do not exist yet read as the fill value, like
    evicted ones.

    Raises
    ------
    StoreError
        The metadata is damaged.
    """
    path = folder / "zarr.json"
    try:
        metadata = json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreError(f"{path} is damaged; opening the store again mends it") from error
    if metadata["shape"][0] < segments * slots:
        metadata["shape"][0] = slots << max(4, (segments - 1).bit_length())
        write_json(path, metadata)


def open_array(folder: Path) -> "zarr.Array[Any]":
    """Open a pool with zarr-python, as any other program would.

    Raises
    ------
    StoreError
        The folder cannot be opened as a Zarr array.
    """
    import zarr

    try:
        return zarr.open_array(store=str(folder), mode="r")
    except Exception as error:  # zarr raises many kinds for broken metadata
        raise StoreError(f"{folder} cannot be opened as a Zarr array: {error}") from error


def write_group(folder: Path, store_id: str, limit: int | None) -> bool:
    """Write the Zarr group of the pools, with the store's id and limit as attributes.

    `limit` is in bytes, or None. Returns False if the group already has these attributes.
    """
    ours = {"format": FORMAT_VERSION, "store": store_id, "limit": limit}
    if read_group(folder) == ours:
        return False
    attributes = {_OURS: ours}
    write_json(
        folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    )
    return True


def read_group(folder: Path) -> dict[str, Any] | None:
    """Return what `write_group` wrote (format, store, limit), or None."""
    try:
        ours: dict[str, Any] = json.loads((folder / "zarr.json").read_bytes())["attributes"][_OURS]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return ours


def is_pool_folder(name: str) -> bool:
    """Return whether a name is one that `pool_folder` could return."""
    return re.fullmatch(r"[A-Za-z0-9_-]+-[0-9a-f]{12}(-lz4)?", name) is not None
