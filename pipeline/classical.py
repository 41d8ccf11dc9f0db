"""Distances that need no network: squared error, and PSNR and SSIM from torchmetrics."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_SEVERAL = (1, 2, 3)  # dimensions of one image in a batch


def squared_error(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared difference of RGB in [0, 1]: [B, 3, H, W] twice -> [B]."""
    return (first - second).square().mean(_SEVERAL)


def psnr_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in decibels, negative: smaller is nearer."""
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


def classical_distances(name: str, first: Tensor, second: Tensor) -> Tensor:
    """Return the distances [B] of uint8 images [B, H, W, 3] under a metric of `CLASSICAL`."""
    sides = [side.permute(0, 3, 1, 2).to(torch.float32) / 255 for side in (first, second)]
    return CLASSICAL[name](*sides)
