"""Which judgements a training step takes, and which of them each process works on when.

torch's DistributedSampler fills the last batch up with judgements that then count twice, and cuts
batches by the number of processes. Here a step is the same judgements however many processes share
it, and what is filled up counts nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """What a process does of one step: batches that go through together, one after another.

    Attributes
    ----------
    batches : list of ndarray
        Numbers of judgements; every process has the same number of batches, none of them empty.
    counts : list of ndarray
        1 for a judgement that counts, 0 for one that only fills up.
    """

    batches: list[Numbers]
    counts: list[NDArray[np.float64]]


def shuffled(numbers: Numbers, generator: torch.Generator) -> Numbers:
    """Return numbers in a random order."""
    return np.asarray(numbers[torch.randperm(len(numbers), generator=generator).numpy()])


def steps(order: Numbers, batch: int) -> Iterator[Numbers]:
    """Cut an epoch into steps; the last one has what is left."""
    for start in range(0, len(order), batch):
        yield np.asarray(order[start : start + batch])


def share(step: Numbers, rank: int, world: int, at_once: int) -> Share:
    """Return what process `rank` of `world` does of a step, at most `at_once` at a time.

    A step is cut into batches of about the same length, and each process takes as many of them in
    a row. One process and several cut it in the same places wherever the number of batches can be
    shared out evenly, so that their sums differ in the order of a few terms only.
    """
    each = -(-len(step) // (world * at_once))  # batches of a process
    mine = np.array_split(step, each * world)[rank * each : (rank + 1) * each]
    return Share(
        [batch if len(batch) else step[:1] for batch in mine],
        [np.ones(len(batch)) if len(batch) else np.zeros(1) for batch in mine],
    )


def hold_out(triplets: Numbers, share_held: float, seed: int) -> tuple[Numbers, Numbers]:
    """Split judgements into those to learn from and those held out.

    Parameters
    ----------
    triplets
        [n, 3]: ref, p0, p1 as numbers of images. Judgements of the same triplet, p0 and p1 in
        either order, stay together: what is held out has not been seen.
    share_held
        In [0, 1): about this share is held out.
    seed
        Of the choice.

    Returns
    -------
    learn, held : ndarray
        Numbers of judgements, ascending.
    """
    group = _same_triplets(triplets)
    order = np.random.default_rng(seed).permutation(group.max() + 1)
    sizes = np.bincount(group)[order]
    held_groups = order[np.cumsum(sizes) <= round(share_held * len(triplets))]
    held = np.isin(group, held_groups)
    return np.flatnonzero(~held), np.flatnonzero(held)


def seen_before(triplets: Numbers, learn: Numbers, held: Numbers) -> Numbers:
    """Return those of the judgements `held` out whose triplet is one of those to `learn` from.

    `triplets` as for `hold_out`; whatever people answered, the training has seen the images.
    """
    group = _same_triplets(triplets)
    return np.asarray(held[np.isin(group[held], group[learn])])


def _same_triplets(triplets: Numbers) -> Numbers:
    """Number the different triplets: [n]; p0 and p1 in either order are the same one."""
    same = np.column_stack([triplets[:, 0], np.sort(triplets[:, 1:], axis=1)])
    return np.unique(same, axis=0, return_inverse=True)[1].reshape(-1)
