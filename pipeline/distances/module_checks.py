"""What `LPIPS` says of images that it cannot take."""

import warnings
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor

from ...cache.errors import UsageError
from ..backbones.load import family_of

# Tolerate the rounding of 2 * x - 1 and the like
_RANGE_SLACK = 1e-5
_LOOKS_NORMALIZED = (
    "No value of either batch is under 0, so the images look as if they were in [0, 1], and LPIPS "
    "expects [-1, 1]: call the metric with normalize=True, or scale them by 2 * images - 1. "
    "check_range=False switches this warning off."
)


def check_batches(in0: Tensor, in1: Tensor) -> None:
    """Raise `UsageError` for wrong types, or shapes that do not fit; looks at no value."""
    for name, images in (("in0", in0), ("in1", in1)):
        _check_kind(name, images)
    if in0.shape[2:] != in1.shape[2:] or not _batches_meet(in0, in1):
        raise UsageError(
            f"Both batches must have the same shape, or one of them a batch of 1: "
            f"in0 is {tuple(in0.shape)}, in1 is {tuple(in1.shape)}."
        )


def _batches_meet(in0: Tensor, in1: Tensor) -> bool:
    return in0.shape[0] == in1.shape[0] or 1 in (in0.shape[0], in1.shape[0])


def _check_kind(name: str, images: object) -> None:
    if not isinstance(images, Tensor):
        raise UsageError(f"{name} must be a torch.Tensor, and a {type(images).__name__} came.")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[0] == 0:
        advice = ""
        if images.ndim == 3:
            advice = " One image needs images[None]."
        elif images.ndim == 4 and images.shape[3] == 3:
            advice = " Channels come second: images.permute(0, 3, 1, 2)."
        raise UsageError(
            f"{name} must have the shape (B, 3, H, W) or (B, 1, H, W), and {tuple(images.shape)} "
            f"came.{advice}"
        )
    if not images.is_floating_point():
        raise UsageError(
            f"{name} must be floating, in [-1, 1], and {images.dtype} came. For values 0 to 255: "
            "images.float() / 127.5 - 1."
        )


@lru_cache(maxsize=4096)  # a model of torchvision is run on the meta device
def check_size(net: str, taps: tuple[str, ...], height: int, width: int) -> None:
    """Raise `UsageError` if the trunk takes no images of this size, in pixels."""
    family_of(net).outline(net, taps).layout(height, width)


def check_mask(mask: object, in0: Tensor, in1: Tensor) -> None:
    """Raise `UsageError` for a mask that does not fit the images; looks at no value."""
    batch = max(in0.shape[0], in1.shape[0])
    wanted = f"(B or 1, 1, H, W), here ({batch} or 1, 1, {in0.shape[2]}, {in0.shape[3]})"
    if not isinstance(mask, Tensor):
        raise UsageError(f"mask must be a torch.Tensor, and a {type(mask).__name__} came.")
    fits = mask.ndim == 4 and mask.shape[1] == 1 and mask.shape[2:] == in0.shape[2:]
    if not fits or (mask.shape[0] != 1 and mask.shape[0] != batch) or mask.is_complex():
        raise UsageError(
            f"mask must have the shape {wanted}, and {tuple(mask.shape)} of {mask.dtype} came."
        )


def check_weights(mask: Tensor) -> None:
    """Raise `UsageError` for a mask with values that are negative, infinite or not a number."""
    low, high = _limits(mask)
    if not (low >= 0 and high < float("inf")):
        raise UsageError(
            f"mask must hold finite weights of 0 or more, and values from {low:.6g} to {high:.6g} "
            "came. check_range=False switches this check off."
        )


def check_range(in0: Tensor, in1: Tensor, *, normalize: bool) -> bool:
    """Raise `UsageError` for values outside the range; return whether they look like [0, 1]."""
    lows = [
        _check_side(name, images, normalize=normalize)
        for name, images in (("in0", in0), ("in1", in1))
    ]
    return min(lows) >= 0 and not normalize


def warn_of_range() -> None:
    """Warn that images look as if they were in [0, 1]; the line shown is that of the caller."""
    warnings.warn(_LOOKS_NORMALIZED, stacklevel=4)


def _check_side(name: str, images: Tensor, *, normalize: bool) -> float:
    lowest = 0.0 if normalize else -1.0
    low, high = _limits(images)
    if low >= lowest - _RANGE_SLACK and high <= 1 + _RANGE_SLACK:
        return low
    advice = "divide by 127.5 and subtract 1" if not normalize else "divide by 255"
    hint = f" For values 0 to 255, {advice}." if high > 2 else ""
    hint = " Without normalize=True the range is [-1, 1]." if normalize and low < 0 else hint
    raise UsageError(
        f"{name} must lie in [{lowest:.0f}, 1]{' with normalize=True' if normalize else ''}, "
        f"and values from {low:.6g} to {high:.6g} came.{hint} "
        "check_range=False switches this check off."
    )


def _limits(values: Tensor) -> tuple[float, float]:
    return cast(tuple[float, float], torch.stack(values.detach().aminmax()).tolist())
