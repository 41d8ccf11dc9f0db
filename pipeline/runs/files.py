"""File names in the folder of a run, and reading and writing its JSON."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from ...cache.errors import LpipstoreError, UsageError
from ..common.atomic import replacing
from ..common.text import json_text

FORMAT = 1
MANIFEST = "manifest.json"
IMAGES = "images.parquet"
PAIRS = "pairs.parquet"
GROUPS = "groups.parquet"
JUDGEMENTS = "judgements.parquet"
METRICS = "metrics.parquet"
DISTANCES = "distances.zarr"
STATISTICS = "statistics.zarr"
PARTS = "parts"
SUMMARY = "summary.json"


def contents_digest(contents: Iterable[bytes | None]) -> str:
    """Return the xxh3-128 over content hashes in order (hex); None stands for an unusable file."""
    digest = xxhash.xxh3_128()
    for content in contents:
        digest.update(content or b"unusable")
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run.

    Raises
    ------
    UsageError
        The file does not exist: the folder is not a run.
    LpipstoreError
        The file is damaged or unreadable.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path.parent} is not a run of lpipstore: no {path.name}") from error
    except (OSError, ValueError) as error:
        raise LpipstoreError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise LpipstoreError(f"{path} is damaged: it should hold a JSON object")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    with replacing(path) as file:
        file.write(json_text(content).encode() + b"\n")
