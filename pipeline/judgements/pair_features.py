"""Statistics of judged pairs: computed once from rows, kept in the store, and read from then on.

The key of a pair's statistics is made from the contents of its two images and the recipe of their
rows, so other judgements of the same pair, another split or another training need neither rows nor
forwards.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...cache.keys import PoolSpec
from ...cache.store import StoreFull
from ..common.progress import Report, silent
from ..features.extractor import Extractor
from ..features.features import Features
from ..pairlists.plan import plan_list
from ..pairlists.schedule import room_for
from ..pairlists.statistics import make_statistics


def statistics_spec(extractor: Extractor) -> PoolSpec:
    """Return the spec under which the store keeps pair statistics."""
    rows = extractor.spec
    return PoolSpec(
        name=f"{rows.name}-pairs",
        length=sum(extractor.layout.channels),
        dtype="float32",
        recipe={
            **rows.recipe,
            "row_dtype": rows.dtype,
            "of": "pairs: mean squared difference of each channel",
        },
    )


def number_pairs(
    left: NDArray[np.int64], right: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct pairs, [n, 2] with the smaller number first, and the index of each."""
    ends = np.sort(np.stack([left, right], axis=1), axis=1)
    pairs, place = np.unique(ends, axis=0, return_inverse=True)
    return pairs, place.reshape(-1)


def kept_statistics(
    features: Features, contents: Sequence[bytes], pairs: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read the statistics of pairs from the store.

    Parameters
    ----------
    contents
        Content hash of each image.
    pairs
        int64 [n, 2]: image numbers.

    Returns
    -------
    numbers, known
        float32 [n, channels of all taps], and bool [n]: which of these pairs the store had. The
        statistics of an image with itself are 0 and always known. Unknown rows are undefined.
    """
    spec = statistics_spec(features.extractor)
    numbers = np.empty((len(pairs), spec.length), np.float32)
    with features.clock("read"):
        known = features.store.get_many(_keys(spec, contents, pairs), numbers)
    same = np.array([contents[i] == contents[j] for i, j in pairs.tolist()], bool)
    numbers[same] = 0
    return numbers, known | same


def fill_statistics(
    features: Features,
    contents: Sequence[bytes],
    pairs: NDArray[np.int64],
    numbers: NDArray[np.float32],
    wanted: NDArray[np.int64],
    memory: int,
    report: Report = silent,
) -> None:
    """Compute the statistics of ``pairs[wanted]`` from rows, store them, and fill in `numbers`.

    `memory` is the limit for rows in bytes. If the store becomes full, `features.full` says so, and
    `numbers` is filled in all the same.
    """
    spec, rows = statistics_spec(features.extractor), features.extractor.spec
    left, right = pairs[wanted].T
    row_keys = [features.key(content) for content in contents]
    plan = plan_list(left, right, row_keys, rows.row_bytes)
    room = room_for(memory, rows.row_bytes, plan.block)
    first = np.empty(len(plan.pairs), np.int64)  # index into `pairs` of each planned pair
    first[plan.place] = wanted
    done = 0
    report("pairs", done, len(plan.pairs))
    chunks = range(-(-len(plan.pairs) // plan.block))
    for part, made in make_statistics(features, contents, plan, room, chunks):
        numbers[first[part]] = made
        _keep(features, spec, _keys(spec, contents, pairs[first[part]]), made)
        done += len(made)
        report("pairs", done, len(plan.pairs))


def _keys(spec: PoolSpec, contents: Sequence[bytes], pairs: NDArray[np.int64]) -> list[bytes]:
    return [
        spec.key(min(contents[i], contents[j]) + max(contents[i], contents[j]))
        for i, j in pairs.tolist()
    ]


def _keep(features: Features, spec: PoolSpec, keys: list[bytes], made: NDArray[np.float32]) -> None:
    if features.full is not None:
        return
    try:
        with features.clock("write"):
            kept = features.store.put_many(spec, keys, made)
        if kept < len(keys):
            features.full = f"the store at {features.store.path} has reached its limit"
    except StoreFull as error:
        features.full = error.message
