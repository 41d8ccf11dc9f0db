"""Look into a feature store."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..cache.errors import UsageError
from ..cache.store import FeatureStore
from .settings import show_bytes


def describe_store(path: Path) -> dict[str, Any]:
    """Return what a store holds: rows, bytes on disk, pools with their recipes, counters.

    Raises
    ------
    UsageError
        There is no store at `path`.
    """
    if not path.exists():
        raise UsageError(f"no store at {path}: extract or pairs makes one")
    with FeatureStore(path) as store:
        return asdict(store.stat())


def store_facts(stat: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the counts of a store as lines for people: a name and a value each."""
    shown = ("rows", "hits", "misses", "evicted_segments", "corrupt_rows")
    return [
        ("store", str(stat["path"])),
        ("on disk", show_bytes(stat["bytes"])),
        *((name.replace("_", " "), f"{stat[name]:,}") for name in shown),
    ]


def pool_rows(stat: dict[str, Any]) -> list[list[str]]:
    """Return one table row for each pool: name, numbers in a row, dtype, rows, bytes."""
    return [
        [
            pool["name"],
            f"{pool['length']:,}",
            pool["dtype"],
            f"{pool['rows']:,}",
            show_bytes(pool["bytes"]),
        ]
        for pool in stat["pools"]
    ]
