"""Statistics of listed pairs: kept once, they give the distances under any head without rows.

For a pair and each channel c of tap l, s_lc = mean over positions of (x̂ - ŷ)²; the distance under
a head with weights w is d = Σ s_lc w_lc, which is how Zhang et al. 2018 (equation 1) average.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, UsageError, setting
from ..common.progress import Report, silent
from ..common.text import printable
from ..distances.heads import Head
from ..distances.scoring import score_statistics
from ..features.features import Features
from ..runs.files import STATISTICS
from ..runs.zarr_array import chunk_is_whole, open_array
from .plan import ListPlan
from .schedule import Room, room_on_device


def keep_statistics(
    features: Features,
    contents: Sequence[bytes],
    plan: ListPlan,
    room: Room,
    folder: Path,
    attributes: Mapping[str, Any],
    report: Report = silent,
) -> None:
    """Write ``statistics.zarr``, float32 [distinct pairs, channels of all taps], into a folder.

    There is one line for each of the plan's pairs, in their order. Existing chunks are left as they
    are; new ones are renamed into place.
    """
    count, size = len(plan.pairs), plan.block
    path = folder / STATISTICS
    shape = (count, sum(features.extractor.layout.channels))
    array = open_array(path, shape, (size, shape[1]), attributes)
    chunks = range(-(-count // size))
    todo = [chunk for chunk in chunks if not chunk_is_whole(path, array, chunk, 0)]
    done = len(chunks) - len(todo)
    report("statistics", done, len(chunks))
    for part, numbers in make_statistics(features, contents, plan, room, todo):
        with features.clock("write"):
            array[part] = numbers
        done += 1
        report("statistics", done, len(chunks))


def make_statistics(
    features: Features,
    contents: Sequence[bytes],
    plan: ListPlan,
    room: Room,
    chunks: Sequence[int],
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Compute the statistics of the plan's pairs in chunks of `plan.block` pairs.

    Yields, for each of `chunks`, the slice of the plan's pairs and their statistics, float32
    [pairs, channels of all taps].
    """
    layout, spec = features.extractor.layout, features.extractor.spec
    held, memory = room.rows, features.room()
    if memory is not None:
        room = room_on_device(memory, spec.row_bytes, plan.block)

    def of_batch(
        together: list[int], needed: NDArray[np.int64]
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield the statistics of some chunks; their rows are freed at the end."""
        rows = features.send([contents[n] for n in plan.rows[needed]], held)()
        for chunk in together:
            part = slice(chunk * plan.block, min((chunk + 1) * plan.block, len(plan.pairs)))
            places = np.searchsorted(needed, plan.pairs[part])
            with features.clock("score"):
                numbers = score_statistics(rows, places, layout, spec.dtype)
            yield part, numbers

    for batch in _batches(plan, chunks, room):
        yield from of_batch(*batch)


def _batches(
    plan: ListPlan, chunks: Sequence[int], room: Room
) -> Iterator[tuple[list[int], NDArray[np.int64]]]:
    """Yield groups of chunks whose rows fit in memory together, with these rows."""
    together: list[int] = []
    needed, count = np.zeros(len(plan.rows), bool), 0
    for chunk in chunks:
        own = np.unique(plan.pairs[chunk * plan.block : (chunk + 1) * plan.block])
        more = len(own) - int(needed[own].sum())
        if together and count + more > room.rows:
            yield together, np.flatnonzero(needed)
            together, more = [], len(own)
            needed[:], count = False, 0
        together.append(chunk)
        needed[own] = True
        count += more
    if together:
        yield together, np.flatnonzero(needed)


def distances_of_statistics(folder: Path, heads: Sequence[Head]) -> NDArray[np.float32]:
    """Return the distances of the pairs of a run under given heads, from their statistics alone.

    Chunks are read directly as files, for speed: they hold raw numbers, and there are very many.

    Parameters
    ----------
    folder
        The run's folder, with a ``statistics.zarr`` that `keep_statistics` has finished.
    heads
        Heads for the backbone of the run.

    Returns
    -------
    ndarray of shape (heads, distinct pairs)
        Within 1e-6 of the distances computed from rows.

    Raises
    ------
    UsageError
        The run kept no statistics, or the heads are for another backbone.
    LpipstoreError
        The statistics are damaged or incomplete.
    """
    path = folder / STATISTICS
    shown = printable(str(path))
    if not (path / "zarr.json").exists():
        raise UsageError(
            f"{shown} is not there: score the list with {setting('statistics', value=True)}"
        )
    array = zarr.open_array(path, mode="r")
    (count, channels), (size, _) = array.shape, array.chunks
    weights = np.stack([np.concatenate(head.weights) for head in heads], axis=1, dtype=np.float64)
    if len(weights) != channels:
        raise UsageError(f"{shown} is of {channels} channels, and the head has {len(weights)}")
    distances = np.empty((len(heads), count), np.float32)

    def score(chunk: int) -> None:
        if not chunk_is_whole(path, array, chunk, 0):
            raise LpipstoreError(f"{shown} lacks a part: give the command that made it again")
        numbers = np.fromfile(path / "c" / str(chunk) / "0", "<f4").reshape(size, channels)
        part = slice(chunk * size, min((chunk + 1) * size, count))
        distances[:, part] = (numbers[: part.stop - part.start].astype(np.float64) @ weights).T

    with ThreadPoolExecutor() as pool:  # reading and multiplying release the interpreter lock
        for _ in pool.map(score, range(-(-count // size))):
            pass
    return distances
