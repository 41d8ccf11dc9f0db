"""The manifest of a run: what was asked, with the digests and versions that decide the result."""

import os
import platform
from importlib.metadata import version
from typing import Any

from ...pipeline.common.text import printable
from ...pipeline.distances.heads import Head
from ...pipeline.runs.files import FORMAT, contents_digest
from .collection import Collection
from .settings import Settings


def head_attributes(head: Head, precision: str) -> dict[str, Any]:
    """Return what an array of distances says of itself."""
    return {
        "quantity": "LPIPS distance",
        "head_digest": head.digest,
        "precision": precision,
    }


def make_manifest(command: str, collection: Collection, settings: Settings) -> dict[str, Any]:
    """Return what identifies a run and tells how to make it again."""
    extractor, head = collection.features.extractor, collection.head(settings)
    sources = settings.source_choices()
    return {
        "format": FORMAT,
        "command": command,
        "images": len(collection.records),
        "collection": contents_digest(record.content for record in collection.records),
        **extractor.spec.recipe,
        "weights_origin": extractor.backbone.weights_origin,
        "row_dtype": extractor.spec.dtype,
        "head": head.name,
        "head_digest": head.digest,
        "precision": settings.precision,
        **({"sources": sources} if sources else {}),
        "folder": printable(os.getcwd()),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what took part in the arithmetic and the files."""
    names = ("lpipstore", "torch", "torchvision", "zarr", "numpy", "pillow", "lpips")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
