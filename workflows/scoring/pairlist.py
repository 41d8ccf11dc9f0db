"""What the commands that score lists of pairs have in common: from a list to a run on disk."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
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
from ...pipeline.runs.files import DISTANCES, PAIRS, SUMMARY, contents_digest
from ...pipeline.runs.run import Run
from ..session.collection import Collection, count_images, need_images
from ..session.dryrun import width_of
from ..session.estimate import Work, list_work
from ..session.manifest import head_attributes
from ..session.screen import Screen
from ..session.session import Session
from ..session.settings import Settings, parse_bytes
from ..session.summary import show_figures, show_precision
from .job import Job, Lines


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


@dataclass(frozen=True)
class ListJob(Job):
    """Pairs of a list; subclasses say where the list comes from and what becomes of it.

    Attributes
    ----------
    pairs
        The list.
    statistics
        Whether the statistics of the pairs are kept, too.
    """

    pairs: PairList
    statistics: bool = False

    @abstractmethod
    def write(self, scored: Scored, out: Path) -> dict[str, Any]:
        """Write ``pairs.parquet`` and the like; return what they add to the summary."""

    def besides(self) -> Mapping[str, Any]:
        """Return what the manifest holds besides the list."""
        return {}

    def memory(self, settings: Settings) -> int:
        """Return the bytes that rows may take."""
        return parse_bytes(settings.memory)

    def check(self, records: Sequence[ImageRecord]) -> None:
        """Raise `LpipstoreError` if no image can be used."""
        need_images(records)

    def asked(self) -> Mapping[str, Any]:
        """Return what tells the list from others."""
        return {
            "list": list_digest(self.pairs),
            **self.besides(),
            "statistics": self.statistics,
        }

    def check_memory(self, collection: Collection, settings: Settings) -> None:
        """Raise `UsageError` if the memory does not hold two blocks of rows."""
        row_bytes = collection.row_bytes()
        block = block_of(len(set(collection.contents())), row_bytes)
        room_for(self.memory(settings), row_bytes, block)

    def work(self, collection: Collection, out: Path, settings: Settings) -> Work:
        """Return the pairs that are left."""
        plan = plan_records(collection, self.pairs.left, self.pairs.right)
        room = room_for(self.memory(settings), collection.row_bytes(), plan.block)
        todo = _pairs_to_do(collection, plan, out, settings)
        return list_work(plan, todo, room, width_of(collection, settings))

    def warn(self, collection: Collection, out: Path, settings: Settings, screen: Screen) -> None:
        """Nothing to warn of: a list is as long as its table."""

    def score(self, collection: Collection, out: Path, session: Session) -> dict[str, Any]:
        """Score the list and write its tables; return its figures."""
        settings = session.settings
        scored = _score(self, collection, out, session)
        with session.clock("write"):
            added = self.write(scored, out)
        head = collection.head(settings)
        return {
            **_figures(scored),
            **precision_figures(collection, scored.plan, head, settings),
            "rows_read": collection.features.rows_read,
            **added,
        }

    @staticmethod
    def lines(summary: dict[str, Any], out: Path) -> Lines:
        """Return the summary as lines for people."""
        return list_lines(summary, out)


def list_digest(pairs: PairList) -> str:
    """Return the xxh3-128 over the ends of a list's pairs (hex)."""
    digest = xxhash.xxh3_128()
    for side in (pairs.left, pairs.right):
        digest.update(np.ascontiguousarray(side, "<i8").data)
    return digest.hexdigest()


def need_same_pairs(run: Run, pairs: PairList) -> None:
    """Raise `LpipstoreError` unless the tables of a run hold the pairs that its manifest names."""
    if list_digest(pairs) != run.manifest.get("list"):
        raise LpipstoreError(
            f"the pairs.parquet in {printable(str(run.path))} does not hold the pairs that its "
            "manifest names: give the command that made the run"
        )


def _score(job: ListJob, collection: Collection, out: Path, session: Session) -> Scored:
    features, contents = collection.features, list(dict.fromkeys(collection.contents()))
    index = np.full(len(collection.records), -1, np.int64)
    good = np.array([not record.error for record in collection.records])
    index[good] = np.arange(good.sum())
    plan = plan_records(collection, job.pairs.left, job.pairs.right)
    room = room_for(job.memory(session.settings), collection.row_bytes(), plan.block)
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
