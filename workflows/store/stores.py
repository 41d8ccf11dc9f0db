"""Maintain a feature store: describe, verify, evict, clear."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...cache.errors import UsageError, setting
from ...cache.store import FeatureStore
from ..session.settings import first_limit, parse_bytes, show_bytes

_COUNTERS = (
    "hits",
    "misses",
    "evicted_segments",
    "corrupt_rows",
    "adopted_orphans",
    "removed_orphans",
)


def open_existing(path: Path) -> FeatureStore:
    """Open an existing store.

    Raises
    ------
    UsageError
        There is no store at `path`; none is created.
    """
    if not path.exists() or (path.is_dir() and not any(path.glob("*"))):
        raise UsageError(f"no store at {path}: extract or pairs makes one")
    return FeatureStore(path, first_limit=lambda: first_limit(path))


def describe_store(path: Path) -> dict[str, Any]:
    """Return what a store holds: rows, bytes on disk, pools with their recipes, counters."""
    with open_existing(path) as store:
        return asdict(store.stat())


def verify_store(path: Path, *, repair: bool) -> dict[str, Any]:
    """Read every row of a store and cross-check its index and files; see `FeatureStore.verify`."""
    with open_existing(path) as store:
        return asdict(store.verify(repair=repair))


def evict_store(path: Path, to: str) -> dict[str, Any]:
    """Evict least recently used rows until the store takes at most `to` (such as "5GB")."""
    target = parse_bytes(to)
    with open_existing(path) as store:
        freed = store.evict(target)
        return {**asdict(freed), "left": store.stat().bytes}


def clear_store(path: Path, backbone: str | None) -> dict[str, Any]:
    """Remove all rows, or those of one backbone."""
    with open_existing(path) as store:
        held = sorted({pool.recipe.get("backbone", "") for pool in store.stat().pools})
        cleared = store.clear(None if backbone is None else {"backbone": backbone})
        return {
            **asdict(cleared.freed),
            "kept_segments": cleared.kept_segments,
            "left": store.stat().bytes,
            "unknown": backbone if backbone is not None and backbone not in held else None,
            "backbones": held,
        }


def store_lines(stat: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the summary lines of a store's counts, as (name, value) pairs."""
    return [
        ("store", str(stat["path"])),
        ("on disk", show_bytes(stat["bytes"])),
        ("limit", "none" if stat["limit"] is None else show_bytes(stat["limit"])),
        ("rows", f"{stat['rows']:,}"),
        *((name.replace("_", " "), f"{stat[name]:,}") for name in _COUNTERS),
        ("evicted", show_bytes(stat["evicted_bytes"])),
    ]


def pool_rows(stat: dict[str, Any]) -> list[list[str]]:
    """Return one table row for each pool: name, row length, dtype, rows, bytes."""
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


def verify_lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the summary lines of a verification, as (name, value) pairs."""
    mends = f"{setting('repair', value=True)} mends it, what is lost is computed"
    verdict = "sound" if report["ok"] else f"NOT sound: {mends}"
    lines = [
        ("store", report["path"]),
        ("read", f"{report['rows']:,} rows, {show_bytes(report['bytes'])}"),
    ]
    for finding in report["findings"]:
        lost = f" ({finding['rows']:,} rows lost)" if finding["rows"] else ""
        mended = ", repaired" if finding["repaired"] else ""
        lines.append((finding["kind"], finding["where"] + lost + mended))
    return [*lines, ("verdict", verdict)]


def freed_lines(freed: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the summary lines of an eviction or clearing, as (name, value) pairs."""
    lines = [
        ("removed", f"{freed['rows']:,} rows, {show_bytes(freed['bytes'])}"),
        ("left on disk", show_bytes(freed["left"])),
    ]
    if freed.get("unknown") is not None:
        there = ", ".join(freed["backbones"]) or "none"
        lines.insert(0, ("backbones", f"{there}; no rows of {freed['unknown']!r}"))
    if freed.get("kept_segments"):
        lines.append(("kept", f"{freed['kept_segments']} segments that other runs are using"))
    return lines
