"""Classical distances without a network: squared error, and PSNR and SSIM from torchmetrics."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..common.progress import Report, Stopwatch, silent
from ..features.held import HeldRows
from ..pairlists.plan import SAME, plan_list
from ..pairlists.schedule import ListStep, RowSet, room_for, steps

_MOST_AT_ONCE = 64  # pairs
_WORKING_BYTES = 1 << 30  # of the arithmetic on them
_COPIES = 20  # float32 copies that SSIM makes of one image of a pair
_SEVERAL = (1, 2, 3)  # dimensions of one image in a batch


def squared_error(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean squared difference [B] of RGB images [B, 3, H, W] in [0, 1]."""
    return (first - second).square().mean(_SEVERAL)


def psnr_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the negative peak signal-to-noise ratio in decibels: smaller is nearer."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return -_each(
        peak_signal_noise_ratio(first, second, data_range=1.0, reduction="none", dim=_SEVERAL)
    )


def ssim_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 - SSIM (Wang et al. 2004; Gaussian window of 11 pixels), in [0, 2]."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    return 1 - _each(
        structural_similarity_index_measure(first, second, data_range=1.0, reduction="none")
    )


def _each(values: Tensor | tuple[Tensor, ...]) -> Tensor:
    if not isinstance(values, Tensor):
        raise TypeError(f"one tensor was wanted, and {len(values)} came")
    return values.reshape(-1)


CLASSICAL: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "L2": squared_error,
    "PSNR": psnr_distance,
    "SSIM": ssim_distance,
}
OF_ITSELF: Mapping[str, float] = {"L2": 0.0, "PSNR": -math.inf, "SSIM": 0.0}
"""Distance of an image to itself under each metric."""


def classical_distances(name: str, first: Tensor, second: Tensor) -> Tensor:
    """Return the distances [B] of uint8 images [B, H, W, 3] under a metric of `CLASSICAL`."""
    sides = [side.permute(0, 3, 1, 2).to(torch.float32) / 255 for side in (first, second)]
    return CLASSICAL[name](*sides)


@torch.inference_mode()
def distances_of_pairs(
    names: Sequence[str],
    pairs: NDArray[np.int64],
    keys: Sequence[bytes],
    size: tuple[int, int],
    load: Callable[[NDArray[np.int64]], Tensor],
    memory: int,
    *,
    clock: Stopwatch,
    report: Report = silent,
) -> dict[str, NDArray[np.float64]]:
    """Compute several metrics on the same pairs; all metrics share the loaded images.

    Each image is loaded once if all fit in memory. Otherwise as many as fit stay while those that
    they are paired with are streamed (see `lpipstore.pipeline.pairlists.schedule`).

    Parameters
    ----------
    names
        Metrics of `CLASSICAL`.
    pairs
        int64 [pairs, 2]: image numbers; each pair once.
    keys
        Unique key of each image.
    size
        (height, width) of the images in pixels.
    load
        Given image numbers, returns their pixels, uint8 [n, height, width, 3].
    memory
        Bytes that loaded images may take; the arithmetic takes up to `_WORKING_BYTES` beside them.

    Returns
    -------
    dict
        float64 [pairs] for each name. A distance depends on its two images alone.

    Raises
    ------
    UsageError
        `memory` is too small for two blocks of images; the message gives the minimum.
    """
    image_bytes = 3 * size[0] * size[1]
    plan = plan_list(pairs[:, 0], pairs[:, 1], keys, image_bytes)
    plan = replace(plan, dense=np.zeros_like(plan.dense))  # images one by one: no products here
    room = room_for(memory, image_bytes, plan.block)
    # Fixed batch size, padded with the last pair: kernels are chosen by the shape of a batch
    at_once = max(1, min(_MOST_AT_ONCE, _WORKING_BYTES // (4 * image_bytes * _COPIES)))
    found = {name: np.empty(len(plan.pairs)) for name in names}
    done = 0

    def load_rows(which: RowSet) -> Tensor:
        return load(plan.rows[which.rows])

    def score(step: ListStep, left: Tensor, right: Tensor | None = None) -> None:
        """Compare the pairs of a step; its images are freed on return."""
        nonlocal done
        first = step.left.places(plan.pairs[step.pairs, 0])
        second = (step.right or step.left).places(plan.pairs[step.pairs, 1])
        for start in range(0, len(step.pairs), at_once):
            these = step.pairs[start : start + at_once]
            filled = np.minimum(np.arange(start, start + at_once), start + len(these) - 1)
            with clock("score"):
                sides = left[first[filled]], (left if right is None else right)[second[filled]]
                for name in names:
                    numbers = classical_distances(name, *sides)[: len(these)]
                    found[name][these] = numbers.double().numpy()
            done += len(these)
            report("pixels", done, len(plan.pairs))

    rows = HeldRows(load_rows)
    for step in steps(plan, np.arange(len(plan.pairs)), room):
        needed = (step.left,) if step.right is None else (step.left, step.right)
        score(step, *rows.get(needed))
    same = plan.place == SAME
    return {
        name: np.where(same, OF_ITSELF[name], found[name][plan.place] if len(plan.pairs) else 0.0)
        for name in names
    }
