"""What the commands that score lists of pairs have in common: from a list to a run on disk."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError
from ...pipeline.common.text import printable
from ...pipeline.distances.distances import block_of
from ...pipeline.distances.heads import Head, column_weights
from ...pipeline.images.survey import ImageRecord
from ...pipeline.pairlists.file import DistanceFile
from ...pipeline.pairlists.plan import UNUSABLE, ListPlan, plan_list
from ...pipeline.pairlists.schedule import Room, room_for
from ...pipeline.pairlists.score import Target, fast_list_error, score_lists
from ...pipeline.pairlists.statistics import keep_statistics
from ...pipeline.pairlists.summary import list_summary
from ...pipeline.pairlists.table import PairList
from ...pipeline.runs.files import DISTANCES, PAIRS, SUMMARY, contents_digest, write_json
from ...pipeline.runs.tables import write_images
from ...pipeline.runs.writing import writing_run
from ..session.collection import Collection, count_images, need_images
from ..session.dryrun import forecast, look_at, width_of
from ..session.estimate import list_work
from ..session.manifest import head_attributes, make_manifest
from ..session.preflight import warn_of_forwards
from ..session.session import Session, make_collection
from ..session.settings import Settings, parse_bytes
from ..session.summary import show_figures, show_precision


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

    def table(self, which: slice | NDArray[np.int64] = slice(None)) -> pa.Table:
        """Return what ``pairs.parquet`` holds, but for columns that the list brought along.

        Of all pairs, or of those that `which` chooses: paths take several times the memory of all
        that is known of a pair besides.

        ``statistics_row`` says which line of ``statistics.zarr`` is the pair's; null for pairs of
        equal images, whose statistics are all 0, and for pairs without a distance.
        """
        names = pa.array([printable(record.path) for record in self.records], pa.string())
        columns = {}
        sides = [("i", self.pairs.left[which]), ("j", self.pairs.right[which])]
        place = self.plan.place[which]
        for letter, side in sides:
            columns[letter] = pa.array(self.index[side], mask=self.index[side] < 0)
        for letter, side in sides:
            columns[f"path_{letter}"] = names.take(pa.array(side))
        columns["distance"] = pa.array(self.distances[which], mask=place == UNUSABLE)
        if self.statistics:
            columns["statistics_row"] = pa.array(place, mask=place < 0)
        return pa.table(columns)


Finish = Callable[[Scored, Path], dict[str, Any]]
"""Writes what a command adds to a run, and returns what it adds to the summary."""


@dataclass(frozen=True)
class ListJob:
    """A list to score for a command; `asked` is what the manifest says besides.

    With `statistics` the pairs' statistics are kept, too. Of the memory that a person allows, the
    pairs have `taken` so many bytes.
    """

    command: str
    pairs: PairList
    finish: Finish
    asked: Mapping[str, Any] = field(default_factory=dict)
    statistics: bool = False
    taken: int = 0


def run_list(
    job: ListJob, records: list[ImageRecord], out: Path, session: Session
) -> dict[str, Any]:
    """Score a list of pairs and write the run to the folder `out`; return its summary.

    `records` belong to the paths of the list, one by one.

    Raises
    ------
    LpipstoreError
        There is something that a person has to change; the message says what.
    """
    settings, clock, screen = session.settings, session.clock, session.screen
    memory = parse_bytes(settings.memory) - job.taken
    need_images(records)
    collection = make_collection(records, session)
    row_bytes = collection.row_bytes()
    block = block_of(len(set(collection.contents())), row_bytes)
    room_for(memory, row_bytes, block)  # too little is told before the forwards
    manifest = {
        **make_manifest(job.command, collection, settings),
        "list": list_digest(job.pairs),
        **job.asked,
        "statistics": job.statistics,
    }
    if settings.dry_run:
        look_at(out, manifest, collection)
        plan = plan_records(collection, job.pairs.left, job.pairs.right)
        room = room_for(memory, row_bytes, plan.block)
        todo = _pairs_to_do(collection, plan, out, settings)
        work = list_work(plan, todo, room, width_of(collection, settings))
        return forecast(collection, work, session)
    warn_of_forwards(collection, screen)
    with writing_run(out, manifest), collection.pinned(printable(str(out))):
        hits = collection.extract()
        collection.warn_of_trouble(screen)
        need_images(collection.records)
        write_images(out, collection.records)
        scored = _score(job, collection, out, memory, session)
        with clock("write"):
            added = job.finish(scored, out)
        summary = {
            **collection.counts(hits),
            **_figures(scored),
            **precision_figures(collection, scored.plan, collection.head(settings), settings),
            "rows_read": collection.features.rows_read,
            **added,
            "seconds": {**clock.seconds, "total": clock.total()},
        }
        write_json(out / SUMMARY, summary)
    collection.warn_if_reading_is_slow(screen)
    return summary


def list_digest(pairs: PairList) -> str:
    """Return the xxh3-128 over the ends of a list's pairs (hex)."""
    digest = xxhash.xxh3_128()
    for side in (pairs.left, pairs.right):
        digest.update(np.ascontiguousarray(side, "<i8").data)
    return digest.hexdigest()


def _score(
    job: ListJob, collection: Collection, out: Path, memory: int, session: Session
) -> Scored:
    features, contents = collection.features, list(dict.fromkeys(collection.contents()))
    index = np.full(len(collection.records), -1, np.int64)
    good = np.array([not record.error for record in collection.records])
    index[good] = np.arange(good.sum())
    plan = plan_records(collection, job.pairs.left, job.pairs.right)
    room = room_for(memory, collection.row_bytes(), plan.block)
    heads = [(collection.head(session.settings), out)]
    (values,) = score_planned(collection, plan, room, heads, session)
    if job.statistics:
        attributes = plan_attributes(collection, plan)
        keep_statistics(features, contents, plan, room, out, attributes, session.screen.report)
    listed = plan.in_list_order(values)
    return Scored(job.pairs, collection.records, index, plan, listed, job.statistics)


def plan_records(
    collection: Collection, left: NDArray[np.int64], right: NDArray[np.int64]
) -> ListPlan:
    """Plan pairs that are given by the numbers of their records; -1 stands for none.

    Raises
    ------
    LpipstoreError
        No pair can be scored.
    """
    contents = list(dict.fromkeys(collection.contents()))
    number = {content: n for n, content in enumerate(contents)}
    image = [
        -1 if record.error or record.content is None else number[record.content]
        for record in collection.records
    ]
    of = np.array([*image, -1])
    keys = [collection.features.key(content) for content in contents]
    plan = plan_list(of[left], of[right], keys, collection.row_bytes())
    if (plan.place == UNUSABLE).all():
        raise LpipstoreError(
            "no pair of the list can be scored: at least one image of each cannot be used"
        )
    return plan


def plan_attributes(collection: Collection, plan: ListPlan) -> dict[str, Any]:
    """Return what tells the numbers of one list from those of any other."""
    contents = list(dict.fromkeys(collection.contents()))
    return {
        "of": contents_digest(contents[n] for n in plan.rows),
        "pairs": xxhash.xxh3_128(plan.pairs.tobytes()).hexdigest(),
        **collection.features.extractor.spec.recipe,
    }


def score_planned(
    collection: Collection,
    plan: ListPlan,
    room: Room,
    heads: Sequence[tuple[Head, Path]],
    session: Session,
) -> list[NDArray[np.float32]]:
    """Score what a list needs under each head, into ``distances.zarr`` of the head's folder.

    Returns the distances of the plan's pairs, an array for each head.
    """
    precision = session.settings.precision
    features, contents = collection.features, list(dict.fromkeys(collection.contents()))
    with ExitStack() as stack:
        targets = []
        for head, folder in heads:
            opened = _distance_file(collection, plan, head, folder, precision)
            file = stack.enter_context(closing(opened))
            targets.append(Target(column_weights(head, features.extractor.layout), file))
        fast = precision == "fast"
        score_lists(features, contents, targets, plan, room, session.screen.report, fast=fast)
        return [target.distances.values for target in targets]


def _distance_file(
    collection: Collection, plan: ListPlan, head: Head, folder: Path, precision: str
) -> DistanceFile:
    """Create the distances of a plan's pairs, or open those that a run has begun."""
    attributes = {**head_attributes(head, precision), **plan_attributes(collection, plan)}
    return DistanceFile(folder, len(plan.pairs), attributes)


def _pairs_to_do(
    collection: Collection, plan: ListPlan, out: Path, settings: Settings
) -> NDArray[np.int64]:
    """Return the plan's pairs whose distances the folder `out` lacks; nothing is written."""
    if not (out / DISTANCES / "zarr.json").exists():
        return np.arange(len(plan.pairs))
    head = collection.head(settings)
    file = _distance_file(collection, plan, head, out, settings.precision)
    return np.flatnonzero(np.isnan(file.values))


def _figures(scored: Scored) -> dict[str, Any]:
    usable, pairs = scored.usable, scored.pairs
    image = image_numbers(scored.records)
    return {
        "pairs": int(usable.sum()),
        "failed_pairs": int((~usable).sum()),
        "different_pairs": len(scored.plan.pairs),
        **list_summary(
            scored.distances[usable], image[pairs.left[usable]], image[pairs.right[usable]]
        ),
    }


def precision_figures(
    collection: Collection, plan: ListPlan, head: Head, settings: Settings
) -> dict[str, Any]:
    """Return what a summary says of ``--precision fast``, and nothing of exact distances."""
    if settings.precision != "fast":
        return {}
    features, contents = collection.features, list(dict.fromkeys(collection.contents()))
    weights = column_weights(head, features.extractor.layout)
    with features.clock("score"):
        error = fast_list_error(features, contents, weights, plan)
    return {"precision": "fast", "precision_error": error}


def image_numbers(records: Sequence[ImageRecord]) -> NDArray[np.int64]:
    """Number images so that equal ones have one number; those that cannot be used have -1."""
    numbers = {record.content: n for n, record in enumerate(records) if not record.error}
    return np.array([numbers.get(record.content, -1) for record in records], np.int64)


def survey_list(paths: Sequence[str], session: Session) -> list[ImageRecord]:
    """Survey the files that a list names, one record for each of its paths."""
    wrong = {
        path: "the list gives no path" if not path else "a path cannot hold a zero byte"
        for path in paths
        if not path or "\0" in path
    }
    found = iter(session.survey([path for path in paths if path not in wrong]))
    return [
        ImageRecord(path, error=wrong[path]) if path in wrong else next(found) for path in paths
    ]


def list_lines(summary: dict[str, Any], out: Path) -> list[tuple[str, str]]:
    """Return the summary as lines for people: a name and a value each."""
    failed = f" ({summary['failed_pairs']:,} could not be)" if summary["failed_pairs"] else ""
    return [
        *count_images(summary),
        ("pairs", f"{summary['pairs']:,} scored{failed}"),
        *show_precision(summary),
        *show_figures(summary, "over images that pairs share"),
        ("results", f"{printable(str(out))} ({PAIRS}, images.parquet, {SUMMARY})"),
    ]
