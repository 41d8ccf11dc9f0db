"""A remote folder of objects: the contract for a kind of storage, and the names in it.

Every object is named by its content and never changes, so that two writers of one name write the
same bytes: no lock, no compare-and-swap, and no order of requests is needed from the storage, only
that an object appears whole. What lies in a folder::

    zarr.json                       Zarr group
    POOL/zarr.json                  Zarr group of one kind of row, its recipe as attribute
    POOL/DIGEST/zarr.json           Zarr array of the rows of one segment
    POOL/DIGEST/c.0.0               the segment: the only shard of that array
    catalogue/DIGEST.parquet        rows of segments that have been pushed; readers take them all
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import xxhash

from ..errors import LpipstoreError
from ..pools import is_pool_folder

GROUP = "zarr.json"
CATALOGUES = "catalogue/"
_SHARD = "c.0.0"


class RemoteError(LpipstoreError):
    """A remote folder cannot be reached, read or written; the message names URL and cause."""


@dataclass(frozen=True)
class Listed:
    """What a listing tells of an object.

    Attributes
    ----------
    size
        Its bytes.
    tag
        Another one when its content is: the storage's checksum, or the time of change. The same
        content may get another tag. Empty if the storage tells nothing.
    """

    size: int
    tag: str = ""


class RemoteFolder(Protocol):
    """Objects under relative names such as ``catalogue/0123.parquet``. Threads may share it.

    Every method raises `RemoteError` if the storage cannot be reached or refuses.

    Attributes
    ----------
    place
        Its URL, for messages: an object is at ``{place}/{name}``.
    """

    @property
    def place(self) -> str:
        """Its URL."""

    def list(self, prefix: str = "") -> Mapping[str, Listed]:
        """Return what is told of each object whose name starts with `prefix` (``""``, ``a/``)."""

    def read(self, name: str) -> bytes | None:
        """Return an object; None if there is none."""

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """Return `size` bytes of an object from `start` on; fewer where it ends or is not there."""

    def write(self, name: str, data: bytes) -> None:
        """Write an object, whole or not at all; one that is there is replaced."""

    def remove(self, name: str) -> None:
        """Remove an object; do nothing if it is not there."""


def digest_of(data: bytes) -> str:
    """Return the name of a content: its xxh3-128 as 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(data)


def segment_name(pool: str, digest: str) -> str:
    """Return the name of a segment's object."""
    return f"{pool}/{digest}/{_SHARD}"


def array_name(pool: str, digest: str) -> str:
    """Return the name of the Zarr metadata of a segment."""
    return f"{pool}/{digest}/{GROUP}"


def is_segment(name: str) -> bool:
    """Return whether a name is one that `segment_name` could return."""
    pool, _, rest = name.partition("/")
    return is_pool_folder(pool) and re.fullmatch(rf"[0-9a-f]{{32}}/{_SHARD}", rest) is not None


def catalogue_name(digest: str) -> str:
    """Return the name of a catalogue."""
    return f"{CATALOGUES}{digest}.parquet"


def is_catalogue(name: str) -> bool:
    """Return whether a name is one that `catalogue_name` could return."""
    return re.fullmatch(rf"{CATALOGUES}[0-9a-f]{{32}}\.parquet", name) is not None
