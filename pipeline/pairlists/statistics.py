"""Statistics of listed pairs: kept once, they give the distances under any head without rows.

For a pair and each channel c of tap l, s_lc = mean over positions of (x̂ - ŷ)²; the distance under
a head with weights w is d = Σ s_lc w_lc, which is how Zhang et al. 2018 (equation 1) average.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, UsageError, setting
from ..backbones.layout import RowLayout
from ..common.progress import Report, silent
from ..common.text import printable
from ..distances.distances import pair_statistics
from ..distances.heads import Head
from ..features.features import Features
from ..runs.files import STATISTICS
from ..runs.zarr_array import chunk_is_whole, open_array
from .plan import ListPlan
from .schedule import Room

_AT_ONCE = 16  # pairs per batch: fixed, so that a pair's bits do not depend on its neighbours


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
    layout, device = features.extractor.layout, features.extractor.device
    dtype, size = features.extractor.spec.dtype, plan.block
    for together, needed in _batches(plan, chunks, room):
        rows = features.load([contents[n] for n in plan.rows[needed]])
        for chunk in together:
            part = slice(chunk * size, min((chunk + 1) * size, len(plan.pairs)))
            places = torch.from_numpy(np.searchsorted(needed, plan.pairs[part])).to(device)
            with features.clock("score"):
                numbers = torch.cat(
                    [
                        _statistics(rows, places[start : start + _AT_ONCE], layout, dtype)
                        for start in range(0, len(places), _AT_ONCE)
                    ]
                )
            yield part, numbers.cpu().numpy()


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


def _statistics(
    rows: torch.Tensor, places: torch.Tensor, layout: RowLayout, dtype: str
) -> torch.Tensor:
    filled = places[torch.arange(_AT_ONCE, device=places.device).clamp_(max=len(places) - 1)]
    bits = rows.view(torch.int16) if rows.dtype == torch.uint16 else rows  # uint16 has no indexing
    left, right = (bits.index_select(0, side).view(rows.dtype) for side in filled.T)
    return pair_statistics(left, right, layout, dtype)[: len(places)]


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
