"""What the commands that score lists of pairs have in common: from a list to a run on disk."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from ..cache.errors import LpipstoreError
from ..cache.store import FeatureStore
from ..pipeline.distances import block_of
from ..pipeline.files import printable
from ..pipeline.heads import column_weights
from ..pipeline.images import ImageRecord, survey
from ..pipeline.listpasses import room_for
from ..pipeline.listplan import UNUSABLE, ListPlan, plan_list
from ..pipeline.listresults import DistanceFile
from ..pipeline.listscore import score_list
from ..pipeline.liststatistics import keep_statistics
from ..pipeline.listsummary import list_summary
from ..pipeline.pairlists import PairList
from ..pipeline.progress import Stopwatch
from ..pipeline.results import (
    PAIRS,
    SUMMARY,
    contents_digest,
    write_images,
    write_json,
    writing_run,
)
from .collection import (
    Collection,
    count_images,
    make_collection,
    need_images,
)
from .console import Screen
from .pairs import make_manifest, show_figures
from .settings import Settings, parse_bytes


@dataclass(frozen=True)
class Scored:
    """A list whose pairs are scored.

    Attributes
    ----------
    pairs
        The list.
    records
        One for each of the list's paths; those with an ``error`` could not be used.
    index
        int64 [paths]: line of each path in ``images.parquet`` among the usable ones, -1 for none.
    plan
        Where each pair's distance and statistics are.
    distances
        float32 [pairs], NaN for pairs that could not be scored.
    statistics
        Whether the pairs' statistics are kept.
    """

    pairs: PairList
    records: list[ImageRecord]
    index: NDArray[np.int64]
    plan: ListPlan
    distances: NDArray[np.float32]
    statistics: bool = False

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which pairs have a distance."""
        return np.asarray(self.plan.place != UNUSABLE)

    def table(self) -> pa.Table:
        """Return what ``pairs.parquet`` holds, but for columns that the list brought along.

        ``statistics_row`` says which line of ``statistics.zarr`` is the pair's; null for pairs of
        equal images, whose statistics are all 0, and for pairs without a distance.
        """
        names = pa.array([printable(record.path) for record in self.records], pa.string())
        columns = {}
        for letter, side in (("i", self.pairs.left), ("j", self.pairs.right)):
            columns[letter] = pa.array(self.index[side], mask=self.index[side] < 0)
        for letter, side in (("i", self.pairs.left), ("j", self.pairs.right)):
            columns[f"path_{letter}"] = names.take(pa.array(side))
        columns["distance"] = pa.array(self.distances, mask=~self.usable)
        if self.statistics:
            columns["statistics_row"] = pa.array(self.plan.place, mask=self.plan.place < 0)
        return pa.table(columns)


Finish = Callable[[Scored, Path], dict[str, Any]]
"""Writes what a command adds to a run, and returns what it adds to the summary."""


@dataclass(frozen=True)
class ListJob:
    """A list to score for a command; `asked` is what the manifest says besides.

    With `statistics` the pairs' statistics are kept, too.
    """

    command: str
    pairs: PairList
    finish: Finish
    asked: Mapping[str, Any] = field(default_factory=dict)
    statistics: bool = False


def run_list(
    job: ListJob,
    records: list[ImageRecord],
    out: Path,
    store: FeatureStore,
    settings: Settings,
    clock: Stopwatch,
    screen: Screen,
) -> dict[str, Any]:
    """Score a list of pairs and write the run to the folder `out`; return its summary.

    `records` belong to the paths of the list, one by one.

    Raises
    ------
    LpipstoreError
        There is something that a person has to change; the message says what.
    """
    memory = parse_bytes(settings.memory)
    need_images(records)
    collection = make_collection(records, store, settings, clock, screen)
    row_bytes = collection.row_bytes()
    block = block_of(len(set(collection.contents())), row_bytes)
    room_for(memory, row_bytes, block)  # too little is told before the forwards
    manifest = {
        **make_manifest(job.command, collection, settings),
        "list": _list_digest(job.pairs),
        **job.asked,
        "statistics": job.statistics,
    }
    with writing_run(out, manifest), collection.pinned(printable(str(out))):
        hits = collection.extract()
        collection.warn_of_trouble(screen)
        need_images(collection.records)
        write_images(out, collection.records)
        scored = _score(job, collection, settings, out, memory, screen)
        with clock("write"):
            added = job.finish(scored, out)
        summary = {
            **collection.counts(hits),
            **_figures(scored),
            "rows_read": collection.features.rows_read,
            **added,
            "seconds": {**clock.seconds, "total": clock.total()},
        }
        write_json(out / SUMMARY, summary)
    collection.warn_if_reading_is_slow(screen)
    return summary


def _list_digest(pairs: PairList) -> str:
    digest = xxhash.xxh3_128()
    for side in (pairs.left, pairs.right):
        digest.update(np.ascontiguousarray(side, "<i8").data)
    return digest.hexdigest()


def _score(
    job: ListJob,
    collection: Collection,
    settings: Settings,
    out: Path,
    memory: int,
    screen: Screen,
) -> Scored:
    features, contents = collection.features, list(dict.fromkeys(collection.contents()))
    number = {content: n for n, content in enumerate(contents)}
    index = np.full(len(collection.records), -1, np.int64)
    good = np.array([not record.error for record in collection.records])
    index[good] = np.arange(good.sum())
    image = np.array(
        [
            -1 if record.error or record.content is None else number[record.content]
            for record in collection.records
        ]
    )
    keys = [features.key(content) for content in contents]
    row_bytes = collection.row_bytes()
    plan = plan_list(image[job.pairs.left], image[job.pairs.right], keys, row_bytes)
    if (plan.place == UNUSABLE).all():
        raise LpipstoreError(
            "no pair of the list can be scored: at least one image of each cannot be used"
        )
    room = room_for(memory, row_bytes, plan.block)
    attributes = {
        "of": contents_digest(contents[n] for n in plan.rows),
        "pairs": xxhash.xxh3_128(plan.pairs.tobytes()).hexdigest(),
        **features.extractor.spec.recipe,
    }
    head = collection.head(settings)
    weights = column_weights(head, features.extractor.layout)
    fast = settings.precision == "fast"
    of_head = {
        "quantity": "LPIPS distance",
        "head_digest": head.digest,
        "precision": settings.precision,
    }
    with closing(DistanceFile(out, len(plan.pairs), {**of_head, **attributes})) as distances:
        score_list(features, contents, weights, plan, room, distances, screen.report, fast=fast)
    if job.statistics:
        keep_statistics(features, contents, plan, room, out, attributes, screen.report)
    listed = plan.in_list_order(distances.values)
    return Scored(job.pairs, collection.records, index, plan, listed, job.statistics)


def _figures(scored: Scored) -> dict[str, Any]:
    usable, pairs = scored.usable, scored.pairs
    numbers = {record.content: n for n, record in enumerate(scored.records) if not record.error}
    image = np.array([numbers.get(record.content, -1) for record in scored.records])
    return {
        "pairs": int(usable.sum()),
        "failed_pairs": int((~usable).sum()),
        "different_pairs": len(scored.plan.pairs),
        **list_summary(
            scored.distances[usable], image[pairs.left[usable]], image[pairs.right[usable]]
        ),
    }


def survey_list(
    pairs: PairList, store: FeatureStore, settings: Settings, clock: Stopwatch, screen: Screen
) -> list[ImageRecord]:
    """Survey the files that a list names, one record for each of its paths."""
    wrong = {
        path: "the list gives no path" if not path else "a path cannot hold a zero byte"
        for path in pairs.paths
        if not path or "\0" in path
    }
    with clock("hash"):
        askable = [path for path in pairs.paths if path not in wrong]
        found = iter(survey(askable, store, rehash=settings.rehash, report=screen.report))
    return [
        ImageRecord(path, error=wrong[path]) if path in wrong else next(found)
        for path in pairs.paths
    ]


def list_facts(summary: dict[str, Any], out: Path) -> list[tuple[str, str]]:
    """Return the summary as lines for people: a name and a value each."""
    failed = f" ({summary['failed_pairs']:,} could not be)" if summary["failed_pairs"] else ""
    return [
        *count_images(summary),
        ("pairs", f"{summary['pairs']:,} scored{failed}"),
        *show_figures(summary, "over images that pairs share"),
        ("results", f"{printable(str(out))} ({PAIRS}, images.parquet, {SUMMARY})"),
    ]
