"""How a row is identified: the pool that it belongs to and its key."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xxhash

from .errors import UsageError

FORMAT_VERSION = 1
KEY_BYTES = 16

# No stored row consists of this value alone, so a missing shard cannot be mistaken for data.
FILL_VALUES: Mapping[str, float] = {"uint16": 65535, "int16": -32768, "float32": float("nan")}

# Value = stored number * factor (scale_factor in the CF conventions).
SCALE_FACTORS: Mapping[str, float] = {"uint16": 1 / 65535, "int16": 1 / 32767, "float32": 1.0}


@dataclass(frozen=True)
class PoolSpec:
    """One kind of row: how it is made, its length and its dtype.

    Attributes
    ----------
    name
        Short, readable prefix of the pool's folder; not part of the key.
    length
        Numbers in a row, at least 1.
    dtype
        ``uint16``, ``int16`` or ``float32``.
    recipe
        Everything that determines the row. Opaque to the store: it goes into every key, and into
        the attributes of the pool's Zarr array.

    Raises
    ------
    UsageError
        The length is below 1, or the dtype is none of these.
    """

    name: str
    length: int
    dtype: str
    recipe: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.dtype not in FILL_VALUES:
            raise UsageError(f"rows are {', '.join(FILL_VALUES)}, not {self.dtype!r}")
        if self.length < 1:
            raise UsageError(f"a row has at least one number, not {self.length}")

    @cached_property
    def digest(self) -> bytes:
        """The xxh3-128 (16 bytes) of recipe, length, dtype and format version."""
        facts = {
            "dtype": self.dtype,
            "format": FORMAT_VERSION,
            "length": self.length,
            "recipe": dict(self.recipe),
        }
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return xxhash.xxh3_128_digest(text.encode())

    @property
    def folder(self) -> str:
        """The pool's folder: `name` made safe for a path, and part of the digest."""
        safe = re.sub(r"[^A-Za-z0-9_-]+", "-", self.name).strip("-") or "rows"
        return f"{safe[:80]}-{self.digest[:6].hex()}"

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, uncompressed."""
        return self.length * np.dtype(self.dtype).itemsize

    def key(self, content: bytes) -> bytes:
        """Return the key (16 bytes) of the row for some content, such as an image's hash."""
        return xxhash.xxh3_128_digest(self.digest + content)


def check_keys(keys: "list[bytes]") -> None:
    """Raise `UsageError` unless every key is 16 bytes."""
    for key in keys:
        if len(key) != KEY_BYTES:
            raise UsageError(f"a key is {KEY_BYTES} bytes, not {len(key)}: {key!r}")
