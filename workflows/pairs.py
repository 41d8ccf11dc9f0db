"""Score all pairs of a collection."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..cache.errors import LpipstoreError
from ..cache.keys import PoolSpec
from ..pipeline.backbones import Backbone
from ..pipeline.files import printable
from ..pipeline.heads import Head, column_weights, load_head
from ..pipeline.images import ImageRecord
from ..pipeline.progress import Stopwatch
from ..pipeline.results import (
    DISTANCES,
    FORMAT,
    SUMMARY,
    MatrixFile,
    contents_digest,
    write_images,
    write_json,
    writing_run,
)
from ..pipeline.schedule import band_reader, plan_matrix, score_matrix
from ..pipeline.statistics import pair_summary
from .collection import (
    STAGES,
    Collection,
    count_images,
    find_collection,
    make_collection,
    open_store,
)
from .console import Screen
from .settings import Settings, parse_bytes


def score_pairs(
    sources: Sequence[str | os.PathLike[str]], out: Path, settings: Settings, screen: Screen
) -> dict[str, Any]:
    """Score all pairs of the images in `sources` and write the run to the folder `out`.

    The same call on the same folder goes on where it was interrupted. Returns the summary that is
    also written to ``summary.json``.

    Raises
    ------
    LpipstoreError
        There is something that a person has to change; the message says what.
    """
    clock = Stopwatch(*STAGES)
    memory = parse_bytes(settings.memory)
    with open_store(settings) as store:
        records = find_collection(sources, store, settings, clock, screen)
        _need_two(records)
        collection = make_collection(records, store, settings, clock, screen)
        features = collection.features
        backbone, spec = features.extractor.backbone, features.extractor.spec
        head = load_head(settings.heads, backbone.name, backbone.channels, settings.lpips_version)
        plan_matrix(2, collection.row_bytes(), memory)  # too little is told before the forwards
        manifest = make_manifest("pairs", records, spec, backbone, head)
        with writing_run(out, manifest), collection.pinned(printable(str(out))):
            hits = collection.extract()
            collection.warn_of_trouble(screen)
            _need_two(collection.records)
            write_images(out, collection.records)
            statistics = _score(collection, head, out, memory, screen)
            count = len(collection.good)
            summary = {
                **collection.counts(hits),
                "pairs": count * (count - 1) // 2,
                **statistics,
                "seconds": {**clock.seconds, "total": clock.total()},
            }
            write_json(out / SUMMARY, summary)
        collection.warn_if_reading_is_slow(screen)
        return summary


def _score(
    collection: Collection, head: Head, out: Path, memory: int, screen: Screen
) -> dict[str, Any]:
    """Score what is not scored yet; return the statistics of the whole matrix."""
    features, contents = collection.features, collection.contents()
    plan = plan_matrix(len(contents), collection.row_bytes(), memory)
    attributes = {
        "quantity": "LPIPS distance",
        "head_digest": head.digest,
        **features.extractor.spec.recipe,
    }
    matrix = MatrixFile(out, contents, plan.tile, attributes)
    weights = column_weights(head, features.extractor.layout)
    score_matrix(features, contents, weights, plan, matrix, screen.report)
    with features.clock("score"):
        return pair_summary(band_reader(matrix), len(contents), plan.tile)


def _need_two(records: Sequence[ImageRecord]) -> None:
    good = [record for record in records if not record.error]
    if len(good) < 2:
        reasons = "".join(
            f"\n  {printable(record.path)}: {record.error}" for record in records if record.error
        )
        raise LpipstoreError(
            f"pairs need at least two images, and {len(good)} can be used" + reasons
        )


def make_manifest(
    command: str,
    records: Sequence[ImageRecord],
    spec: PoolSpec,
    backbone: Backbone,
    head: Head,
) -> dict[str, Any]:
    """Return what identifies a run and tells how to make it again."""
    return {
        "format": FORMAT,
        "command": command,
        "images": len(records),
        "collection": contents_digest(record.content for record in records),
        **spec.recipe,
        "weights_origin": backbone.weights_origin,
        "row_dtype": spec.dtype,
        "head": head.name,
        "head_digest": head.digest,
        "folder": printable(os.getcwd()),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what took part in the arithmetic and the files."""
    names = ("lpipstore", "torch", "torchvision", "zarr", "numpy", "pillow", "lpips")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def facts(summary: dict[str, Any], out: Path) -> list[tuple[str, str]]:
    """Return the summary as lines for people: a name and a value each."""
    return [
        *count_images(summary),
        ("pairs", f"{summary['pairs']:,}"),
        *show_figures(summary, "over images"),
        ("results", f"{printable(str(out))} ({DISTANCES}, images.parquet, {SUMMARY})"),
    ]


def show_figures(summary: dict[str, Any], kind: str) -> list[tuple[str, str]]:
    """Return the figures of a summary as lines for people; `kind` is that of the error."""
    stderr = summary["stderr"]
    spread = "" if stderr is None else f" ± {stderr:.4f} (standard error {kind})"
    seconds, quantiles = summary["seconds"], summary["quantiles"]
    stages = ", ".join(f"{name} {seconds[name]:.2f}" for name in STAGES)
    return [
        ("mean distance", f"{summary['mean']:.4f}{spread}"),
        (
            "spread",
            f"std {summary['std']:.4f}, smallest {quantiles['0.0']:.4f}, "
            f"median {quantiles['0.5']:.4f}, largest {quantiles['1.0']:.4f}",
        ),
        ("seconds", f"{seconds['total']:.2f} ({stages})"),
    ]
