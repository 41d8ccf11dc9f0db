"""The Zarr side of the store: a group with one array for each kind of row."""

import contextlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import StoreError
from .keys import FILL_VALUES, FORMAT_VERSION, SCALE_FACTORS, PoolSpec
from .segments import CRC_BYTES, MOST_SLOTS, Compressor

if TYPE_CHECKING:
    import zarr

SEGMENT_BYTES = 64 << 20
SHARE_OF_LIMIT = 16  # a segment takes at most 1/16 of the store's limit
EVICTED = ".evicted"  # suffix of a shard's name while it is being evicted
_OURS = "lpipstore"
_TEMPORARY = ".lpipstore-unfinished-"  # followed by the PID

Decompressor = Callable[[bytes, NDArray[np.generic]], None]


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
        return _compressor() if self.codec else None

    @cached_property
    def decompress(self) -> Decompressor | None:
        """The function that turns stored bytes into a row, or None."""
        return _decompressor() if self.codec else None


def _compressor() -> Compressor:
    from numcodecs import blosc

    def compress(row: NDArray[np.generic]) -> bytes:
        stored: bytes = blosc.compress(row, b"lz4", 5, blosc.SHUFFLE, 0)
        return stored

    return compress


def _decompressor() -> Decompressor:
    from numcodecs import blosc

    def decompress(stored: bytes, row: NDArray[np.generic]) -> None:
        blosc.decompress(stored, row)

    return decompress


def pool_folder(spec: PoolSpec, codec: str) -> str:
    """Return the folder name of a pool; compressed rows have a folder of their own."""
    return f"{spec.folder}-{codec}" if codec else spec.folder


def slots_for(row_bytes: int, limit: int | None) -> int:
    """Return how many rows a segment holds, given the row's bytes and the store's limit."""
    room = SEGMENT_BYTES if limit is None else min(SEGMENT_BYTES, limit // SHARE_OF_LIMIT)
    return max(1, min(MOST_SLOTS, room // (row_bytes + CRC_BYTES)))


def shard_name(number: int) -> str:
    """Return the chunk key of a shard in its array's folder."""
    return f"c.{number}.0"


def shard_number(name: str) -> int | None:
    """Return the number in a chunk key, or None for any other file name."""
    parts = name.split(".")
    if len(parts) == 3 and parts[0] == "c" and parts[2] == "0" and parts[1].isdecimal():
        return int(parts[1])
    return None


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
        metadata = json.loads((folder / "zarr.json").read_bytes())
        ours = metadata["attributes"][_OURS]
        pool = Pool(
            id=0,
            folder=folder.name,
            name=ours["name"],
            digest=bytes.fromhex(ours["digest"]),
            length=int(metadata["shape"][1]),
            dtype=metadata["data_type"],
            recipe=dict(metadata["attributes"]["recipe"]),
            codec=ours["codec"],
            slots=int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0]),
        )
        spec = PoolSpec(pool.name, pool.length, pool.dtype, pool.recipe)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return pool if ours["format"] == FORMAT_VERSION and spec.digest == pool.digest else None


def describe(pools: Path, pool: Pool, segments: int) -> None:
    """Rewrite the metadata of a pool, with an array long enough for its segments."""
    folder = pools / pool.folder
    folder.mkdir(exist_ok=True)
    spec = PoolSpec(pool.name, pool.length, pool.dtype, pool.recipe)
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


def remove_unfinished(folder: Path) -> None:
    """Remove unfinished files of `write_json` that killed processes left in a folder."""
    for name in os.listdir(folder):
        if is_temporary(name):
            (folder / name).unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Return whether a file name is one of the temporary names of `write_json`."""
    return re.fullmatch(rf"{re.escape(_TEMPORARY)}\d+", name, re.ASCII) is not None


def is_pool_folder(name: str) -> bool:
    """Return whether a name is one that `pool_folder` could return."""
    return re.fullmatch(r"[A-Za-z0-9_-]+-[0-9a-f]{12}(-lz4)?", name) is not None


def sync_folder(folder: Path) -> None:
    """Wait until the entries of a folder are on the disk (fsync)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}")
    try:
        temporary.write_text(json.dumps(value, indent=2))
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
