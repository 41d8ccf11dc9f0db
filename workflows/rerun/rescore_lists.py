"""Rescore a list or groups of a finished run, from rows or from kept statistics."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError
from ...pipeline.common.text import printable
from ...pipeline.distances.heads import Head
from ...pipeline.images.names import absolute, folder_of, joined
from ...pipeline.pairlists.file import DistanceFile, write_table
from ...pipeline.pairlists.schedule import room_for
from ...pipeline.pairlists.statistics import distances_of_statistics
from ...pipeline.pairlists.summary import list_summary
from ...pipeline.runs.files import DISTANCES, PAIRS, SUMMARY, write_json
from ...pipeline.runs.run import Run
from ..scoring.groups import write_groups
from ..scoring.pairlist import image_numbers, plan_records, precision_figures, score_planned
from ..session.collection import Collection
from ..session.manifest import head_attributes
from ..session.session import Session
from ..session.settings import parse_bytes

_OF_HEAD = ("precision", "precision_error")  # summary entries that depend on the head


def rescore_rows(
    run: Run, heads: Sequence[tuple[Head, Path]], collection: Collection, session: Session
) -> list[dict[str, Any]]:
    """Score the pairs of a list under each head from rows; return the summaries."""
    hits = collection.complete()
    left, right = _ends(run)
    good = np.array([n for n, record in enumerate(collection.records) if not record.error] + [-1])
    plan = plan_records(collection, good[left], good[right])
    memory = parse_bytes(session.settings.memory)
    room = room_for(memory, collection.row_bytes(), plan.block)
    found = score_planned(collection, plan, room, heads, session)
    listed = [plan.in_list_order(values) for values in found]
    precisions = [precision_figures(collection, plan, head, session.settings) for head, _ in heads]
    return _finish(run, heads, collection, hits, listed, precisions)


def rescore_statistics(
    run: Run, heads: Sequence[tuple[Head, Path]], collection: Collection
) -> list[dict[str, Any]]:
    """Score the pairs of a list under each head from its statistics; return the summaries."""
    import zarr

    with collection.features.clock("score"):
        found = distances_of_statistics(run.path, [head for head, _ in heads])
    old = dict(zarr.open_array(run.path / DISTANCES, mode="r").attrs)
    places = _numbers(run.pairs.column("statistics_row"))
    if len(places) and places.max() >= found.shape[1]:
        raise LpipstoreError(f"the tables in {printable(str(run.path))} do not fit its statistics")
    listed = []
    for values, (head, out) in zip(found, heads, strict=True):
        of_head = head_attributes(head, str(old.get("precision")))
        attributes = {**old, **of_head, "from_statistics": True}
        with closing(DistanceFile(out, len(values), attributes)) as file:
            file.put(np.arange(len(values)), values)
        # Pairs of equal images have no statistics, and distance 0
        of_pairs = np.zeros(len(places), np.float32)
        of_pairs[places >= 0] = values[places[places >= 0]]
        listed.append(of_pairs)
    return _finish(run, heads, collection, 0, listed, [{} for _ in heads])


def _ends(run: Run) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the images of each pair by their ``index``; -1 for an image that cannot be used."""
    return _numbers(run.pairs.column("i")), _numbers(run.pairs.column("j"))


def _numbers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.asarray(column.fill_null(-1).to_numpy(), np.int64)


def _finish(
    run: Run,
    heads: Sequence[tuple[Head, Path]],
    collection: Collection,
    hits: int,
    listed: Sequence[NDArray[np.float32]],
    precisions: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Write the tables and the summary of each head."""
    left, right = _ends(run)
    usable = (left >= 0) & (right >= 0)
    images = image_numbers(collection.good)
    clock, summaries = collection.features.clock, []
    kept = {name: value for name, value in run.summary.items() if name not in _OF_HEAD}
    for distances, precision, (_, out) in zip(listed, precisions, heads, strict=True):
        with clock("write"):
            table = run.pairs
            if "statistics_row" in table.column_names:
                table = table.drop_columns(["statistics_row"])
            place = table.column_names.index("distance")
            column = pa.array(distances, mask=~usable)
            write_table(out / PAIRS, table.set_column(place, "distance", column))
        scored = distances[usable]
        summary = {
            **kept,
            **collection.counts(hits),
            **list_summary(scored, images[left[usable]], images[right[usable]]),
            **precision,
            "rows_read": collection.features.rows_read,
        }
        if run.manifest.get("group_by"):
            names, group_of = _groups(run)
            summary |= write_groups(out, names, group_of, scored, left[usable], right[usable])
        summary["seconds"] = {**clock.seconds, "total": clock.total()}
        write_json(out / SUMMARY, summary)
        summaries.append(summary)
    return summaries


def _groups(run: Run) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names of the groups, and the group of each usable image."""
    base = str(run.manifest["folder"])
    names = run.groups.column("group").to_pylist()
    numbers = {absolute(joined(base, name)): n for n, name in enumerate(names)}
    paths, status = (run.images.column(name).to_pylist() for name in ("path", "status"))
    folders = [
        absolute(folder_of(joined(base, path)))
        for path, state in zip(paths, status, strict=True)
        if state == "ok"
    ]
    if len(numbers) < len(names) or not numbers.keys() >= set(folders):
        raise LpipstoreError(
            f"the groups of {printable(str(run.path))} cannot be told apart by what their folders "
            "are called: score them anew"
        )
    return names, np.array([numbers[folder] for folder in folders], np.int64)
