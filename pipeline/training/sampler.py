"""Sample judgements: divide epochs into steps, and steps into batches for each process.

torch's DistributedSampler pads the last batch with judgements that then count twice, and its
batches depend on the number of processes. Here a step has the same judgements however many
processes share it, and padding counts nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """One process's share of a step: batches, forwarded one after another.

    Attributes
    ----------
    batches : list of ndarray
        Numbers of judgements; every process has the same number of batches, none of them empty.
    counts : list of ndarray
        1 for a judgement that counts, 0 for padding.
    """

    batches: list[Numbers]
    counts: list[NDArray[np.float64]]


def shuffled(numbers: Numbers, generator: torch.Generator) -> Numbers:
    """Return numbers in a random order."""
    return np.asarray(numbers[torch.randperm(len(numbers), generator=generator).numpy()])


def steps(order: Numbers, batch: int) -> Iterator[Numbers]:
    """Divide an epoch into steps of `batch` judgements; the last one may be smaller."""
    for start in range(0, len(order), batch):
        yield np.asarray(order[start : start + batch])


def share(step: Numbers, rank: int, world: int, at_once: int) -> Share:
    """Return the share of a step for process `rank` of `world`, in batches of at most `at_once`.

    A step is cut into batches of about the same length, and each process takes an equal number of
    consecutive ones. One process and several cut it in the same places wherever the number of
    batches can be shared out evenly, so their sums differ only in the order of a few terms.
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
        [n, 3]: ref, p0, p1 as image numbers. Judgements of the same triplet, p0 and p1 in either
        order, stay together, so that no held-out triplet is trained on.
    share_held
        In [0, 1): the approximate share to hold out.
    seed
        Seed of the random choice.

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
    """Return the judgements in `held` whose triplet also occurs in `learn`.

    `triplets` is as for `hold_out`. Answers do not matter: the training has seen the images.
    """
    group = _same_triplets(triplets)
    return np.asarray(held[np.isin(group[held], group[learn])])


def _same_triplets(triplets: Numbers) -> Numbers:
    """Number the distinct triplets: [n]; the order of p0 and p1 makes no difference."""
    same = np.column_stack([triplets[:, 0], np.sort(triplets[:, 1:], axis=1)])
    return np.unique(same, axis=0, return_inverse=True)[1].reshape(-1)
