"""What a run will take, before it starts: counted from its plan, timed by a short calibration."""

import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...pipeline.distances.distances import block_of, gram_distances
from ...pipeline.distances.panels import Columns, live
from ...pipeline.features.features import Features
from ...pipeline.matrix.plan import MatrixPlan
from ...pipeline.pairlists.plan import ListPlan
from ...pipeline.pairlists.schedule import Room, loads
from .shares import rows_for_workers

_SAMPLE = 8  # images to decode, or rows to read
_LONG = 1.0  # seconds after which nothing is measured twice


@dataclass(frozen=True)
class Work:
    """The work of scoring, besides the forwards.

    Attributes
    ----------
    pairs
        Pairs that get a distance.
    tiles
        Tiles of a matrix, or blocks against blocks of a list, that are still to be scored.
    rows_read
        Rows that are read from the store, repeats included.
    multiply_adds
        Products of two numbers each, for each column that takes part: of a matrix those of its
        pairs, of a list whole blocks where they are multiplied, and two for a number of a single
        pair.
    result_bytes
        Bytes of the distances.
    at_most
        A search may get by with less.
    tiles_done
        Those that an earlier run has left.
    rows_sent, bytes_returned
        Rows that the workers of a cluster read, and bytes of distances that they return.
    """

    pairs: int
    tiles: int
    rows_read: int
    multiply_adds: int
    result_bytes: int
    at_most: bool = False
    tiles_done: int = 0
    rows_sent: int = 0
    bytes_returned: int = 0


@dataclass(frozen=True)
class Estimate:
    """What a run will take; the fields are explained by `Work`, and `hits` are rows in the store.

    Attributes
    ----------
    bytes_read, bytes_kept
        Bytes of the rows read, and of the rows computed or fetched and stored.
    operations
        Twice the multiply-adds.
    seconds
        By stage, and in total; the time of fetching rows is not known.
    fetched
        Rows that come from a remote store; None without one.
    """

    images: int
    unique: int
    forwards: int
    hits: int
    pairs: int
    tiles: int
    tiles_done: int
    rows_read: int
    bytes_read: int
    bytes_kept: int
    operations: int
    result_bytes: int
    at_most: bool
    seconds: dict[str, float]
    fetched: int | None = None


def matrix_work(
    plan: MatrixPlan,
    todo: Set[tuple[int, int]],
    width: int,
    features: Features,
    *,
    at_most: bool = False,
) -> Work:
    """Count what the tiles `todo` of a matrix take whose head has weights on `width` columns."""
    pairs = sum(plan.pairs_in(*tile) for tile in todo)
    return Work(
        pairs=plan.pairs,
        tiles=len(todo),
        rows_read=sum(slab.stop - slab.start for slab in plan.loads(todo)),
        multiply_adds=pairs * width,
        result_bytes=4 * plan.area,
        at_most=at_most,
        tiles_done=len(plan.tiles()) - len(todo),
        rows_sent=rows_for_workers(plan, todo, features.extractor.spec.row_bytes, features.crew),
        bytes_returned=4 * pairs,
    )


def list_work(plan: ListPlan, todo: NDArray[np.int64], room: Room, width: int) -> Work:
    """Count the work of the pairs `todo` of a list, with weights on `width` columns.

    `todo` are places in the plan's `pairs`, ascending.
    """
    cells = np.unique(plan.cell_of[todo])
    single = int((~plan.dense[plan.cell_of[todo]]).sum())
    products = int(plan.dense[cells].sum()) * plan.block**2
    rows = sum(len(part.rows) for part in loads(plan, todo, room))
    return Work(
        pairs=len(plan.place),
        tiles=len(cells),
        rows_read=rows,
        multiply_adds=(products + 2 * single) * width,
        result_bytes=4 * len(plan.place),
        tiles_done=len(plan.cells) - len(cells),
        rows_sent=rows,
        bytes_returned=4 * len(todo),
    )


def estimate(
    features: Features,
    contents: Sequence[bytes],
    weights: NDArray[np.float32],
    work: Work,
    workers: int,
) -> Estimate:
    """Return the work of a run, and the seconds that a short calibration predicts.

    Parameters
    ----------
    features
        Of the images, decoding in this process; nothing is kept or counted as forwarded.
    contents
        Content hash of each image.
    weights
        Column weights of the head, float32 [length].
    work
        What the run's plan says.
    workers
        Processes that decode side by side.
    """
    unique = list(dict.fromkeys(contents))
    extractor = features.extractor
    keys = {features.key(content): content for content in unique}
    absent = {keys[key] for key in features.store.missing(list(keys))}
    missing = features.lacking(unique)
    there = [content for content in unique if content not in absent]
    forward = _seconds_of_forward(features, missing, workers) if missing else 0.0
    product = _seconds_of_product(features, len(unique), weights) if work.tiles else 0.0
    seconds = {
        "forward": len(missing) * forward,
        "read": work.rows_read * _seconds_of_reading(features, there),
        "score": work.multiply_adds * product,
    }
    return Estimate(
        images=len(contents),
        unique=len(unique),
        forwards=len(missing),
        hits=len(there),
        fetched=None if features.remote is None else len(absent) - len(missing),
        pairs=work.pairs,
        tiles=work.tiles,
        tiles_done=work.tiles_done,
        rows_read=work.rows_read,
        bytes_read=work.rows_read * extractor.spec.row_bytes,
        bytes_kept=len(absent) * extractor.spec.row_bytes,
        operations=2 * work.multiply_adds,
        result_bytes=work.result_bytes,
        at_most=work.at_most,
        seconds={**seconds, "total": sum(seconds.values())},
    )


def _seconds_of_forward(features: Features, missing: list[bytes], workers: int) -> float:
    """Seconds for an image, decoding shared among the workers."""
    extractor = features.extractor
    sample = missing[: min(_SAMPLE, extractor.batch)]
    start = time.perf_counter()
    pixels = [decoded.pixels for decoded in features.decode(sample, len(sample))]
    decoding = (time.perf_counter() - start) / len(sample) / max(1, workers)
    images = torch.cat(pixels)
    if not len(images):  # none of them can be decoded, and the run will say why
        return decoding
    return decoding + _timed(lambda: extractor.rows(images)) / extractor.batch


def _seconds_of_reading(features: Features, there: list[bytes]) -> float:
    """Seconds for a row; 0 where there is none to try it with."""
    sample = there[:_SAMPLE]
    if not sample:
        return 0.0
    out = np.empty((len(sample), features.extractor.spec.length), features.extractor.spec.dtype)
    keys = [features.key(content) for content in sample]
    return _timed(lambda: features.store.get_many(keys, out)) / len(sample)


def _seconds_of_product(features: Features, count: int, weights: NDArray[np.float32]) -> float:
    """Time a multiply-add on all pairs of a few random rows, in seconds.

    No two of them are nearly equal: a collection in which most are takes three to four times as
    long.
    """
    spec, device = features.extractor.spec, features.extractor.device
    columns, block = Columns.of(weights, spec.dtype, device), block_of(count, spec.row_bytes)
    few = max(2, min(count, 2 * block))
    noise, shape = np.random.default_rng(0), (few, spec.length)
    whole = np.issubdtype(spec.dtype, np.integer)
    made = noise.integers(0, 1 << 14, shape, np.int16) if whole else noise.random(shape)
    rows = features.device.upload(made.astype(spec.dtype))
    centre = torch.zeros(spec.length, device=device)
    seconds = _timed(lambda: gram_distances(rows, None, columns, centre, block).cpu())
    return seconds / (few * (few - 1) / 2 * max(1, live(columns)))


def _timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes once it is warm; once is enough of what takes long."""
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        if seconds > _LONG:
            break
    return seconds
