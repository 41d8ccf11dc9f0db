"""What the commands that score lists of pairs have in common: from a list to a run on disk."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError
from ...pipeline.common.text import printable
from ...pipeline.distances.distances import block_of
from ...pipeline.distances.heads import Head, column_weights
from ...pipeline.features.pooled import PooledRows
from ...pipeline.images.survey import ImageRecord
from ...pipeline.pairlists.file import DistanceFile
from ...pipeline.pairlists.plan import UNUSABLE, ListPlan, plan_list
from ...pipeline.pairlists.schedule import room_for, room_on_device
from ...pipeline.pairlists.score import ListTarget, fast_list_error, score_lists
from ...pipeline.pairlists.statistics import distances_of_statistics, keep_statistics
from ...pipeline.pairlists.table import PairList
from ...pipeline.runs.files import DISTANCES, STATISTICS, contents_digest
from ...pipeline.runs.run import FinishedRun
from ..session.collection import Collection, need_images
from ..session.dryrun import width_of
from ..session.estimate import Work, list_work
from ..session.manifest import head_attributes
from ..session.screen import Screen
from ..session.session import Session
from ..session.settings import Settings, parse_bytes
from ..session.summary import Results
from .job import Heads, Job
from .listed import ListResults, Scored, results_of


@dataclass(frozen=True)
class ListJob(Job):
    """Pairs of a list; subclasses say where the list comes from and what becomes of it.

    Attributes
    ----------
    pairs
        The list.
    statistics
        Whether the statistics of the pairs are kept, too.
    known
        A run that has kept these statistics, to score from them; None stands for rows.
    """

    pairs: PairList
    statistics: bool = False
    known: Path | None = field(default=None, kw_only=True)

    @abstractmethod
    def write(self, scored: Scored, results: ListResults, out: Path) -> ListResults:
        """Write ``pairs.parquet`` and the like; return the results with what they add."""

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
        room = collection.features.room()
        if room is not None:
            room_on_device(room, row_bytes, block)

    def work(self, collection: Collection, out: Path, settings: Settings) -> Work:
        """Return the pairs that are left."""
        plan = plan_records(collection, self.pairs.left, self.pairs.right)
        room = room_for(self.memory(settings), collection.row_bytes(), plan.block)
        todo = _pairs_to_do(collection, plan, out, settings)
        return list_work(plan, todo, room, width_of(collection, settings))

    def rescored(self, run: FinishedRun, *, from_rows: bool) -> Self:
        """Return the job for other heads; it keeps no statistics, but can use those of the run."""
        known = run.path if self.statistics and not from_rows else None
        return replace(self, statistics=False, known=known)

    def pooled(self, collection: Collection, head: Head, screen: Screen) -> PooledRows | None:
        """Return no pooled rows; None if kept statistics stand for the rows."""
        return super().pooled(collection, head, screen) if self.known is None else None

    def score(self, collection: Collection, heads: Heads, session: Session) -> list[Results]:
        """Score the list under each head and write its tables; return the results."""
        plan = plan_records(collection, self.pairs.left, self.pairs.right)
        if self.known is None:
            values, errors = self._from_rows(collection, plan, heads, session)
        else:
            values = _from_statistics(self.known, collection, plan, heads, session)
            errors = [None for _ in heads]
        index = np.full(len(collection.records), -1, np.int64)
        good = np.array([not record.error for record in collection.records])
        index[good] = np.arange(good.sum())
        results, read = list[Results](), collection.features.rows_read
        for of_plan, error, (_, out) in zip(values, errors, heads, strict=True):
            distances = plan.in_list_order(of_plan)
            scored = Scored(self.pairs, collection.records, index, plan, distances, self.statistics)
            with session.clock("write"):
                results.append(self.write(scored, results_of(scored, error, read), out))
        return results

    def _from_rows(
        self, collection: Collection, plan: ListPlan, heads: Heads, session: Session
    ) -> tuple[list[NDArray[np.float32]], list[float | None]]:
        """Return the distances of the plan's pairs under each head, and how exact they are."""
        features, fast = collection.features, session.settings.precision == "fast"
        contents = list(dict.fromkeys(collection.contents()))
        room = room_for(self.memory(session.settings), collection.row_bytes(), plan.block)
        with ExitStack() as stack:
            targets = []
            for head, out in heads:
                opened = _distance_file(collection, plan, head, out, session.settings.precision)
                file = stack.enter_context(closing(opened))
                targets.append(ListTarget(column_weights(head, features.extractor.layout), file))
            report = session.screen.report
            score_lists(features, contents, targets, plan, room, report, fast=fast)
            values = [target.distances.values for target in targets]
        if self.statistics:
            attributes = plan_attributes(collection, plan)
            for _, out in heads:
                keep_statistics(features, contents, plan, room, out, attributes, report)
        with session.clock("score"):
            errors = [
                fast_list_error(features, contents, target.weights, plan) if fast else None
                for target in targets
            ]
        return values, errors


def list_digest(pairs: PairList) -> str:
    """Return the xxh3-128 over the ends of a list's pairs (hex)."""
    digest = xxhash.xxh3_128()
    for side in (pairs.left, pairs.right):
        digest.update(np.ascontiguousarray(side, "<i8").data)
    return digest.hexdigest()


def need_same_pairs(run: FinishedRun, pairs: PairList) -> None:
    """Raise `LpipstoreError` unless the tables of a run hold the pairs that its manifest names."""
    if list_digest(pairs) != run.manifest.get("list"):
        raise LpipstoreError(
            f"the pairs.parquet in {printable(str(run.path))} does not hold the pairs that its "
            "manifest names: give the command that made the run"
        )


def _from_statistics(
    known: Path, collection: Collection, plan: ListPlan, heads: Heads, session: Session
) -> list[NDArray[np.float32]]:
    """Return the distances of the plan's pairs under each head, from the statistics of a run.

    Raises
    ------
    LpipstoreError
        The statistics are damaged, or of other pairs.
    """
    import zarr

    with session.clock("score"):
        found = distances_of_statistics(known, [head for head, _ in heads])
    of_run = zarr.open_array(known / STATISTICS, mode="r").attrs
    of_plan = plan_attributes(collection, plan)
    if any(of_run.get(name) != of_plan[name] for name in ("of", "pairs")):
        raise LpipstoreError(f"the tables in {printable(str(known))} do not fit its statistics")
    for values, (head, out) in zip(found, heads, strict=True):
        attributes = {"from_statistics": True}
        file = _distance_file(collection, plan, head, out, session.settings.precision, attributes)
        with closing(file):
            file.put(np.arange(len(values)), values)
    return list(found)


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


def _distance_file(
    collection: Collection,
    plan: ListPlan,
    head: Head,
    folder: Path,
    precision: str,
    more: Mapping[str, Any] | None = None,
) -> DistanceFile:
    """Create the distances of a plan's pairs, or open those that a run has begun."""
    of_plan = plan_attributes(collection, plan)
    attributes = {**head_attributes(head, precision), **of_plan, **(more or {})}
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
