"""The arithmetic of one tap, as pure differentiable functions of tensors.

Formulas: Zhang, Isola, Efros, Shechtman and Wang, "The Unreasonable Effectiveness of Deep Features
as a Perceptual Metric", CVPR 2018, equation 1.
"""

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-10


def unit_normalise(tap: Tensor) -> Tensor:
    """Divide the activations at each position by their L2 norm over the channels.

    Parameters
    ----------
    tap : Tensor
        Activations of shape (B, C, H, W), of any floating dtype.

    Returns
    -------
    Tensor
        float32 (float64 stays), the same shape: ``f / (sqrt(sum_c f**2) + 1e-10)``, in [-1, 1]
        ([0, 1] after a ReLU). Where all channels are 0 the result is 0 and so is the gradient.
    """
    values = tap if tap.dtype == torch.float64 else tap.float()
    norm: Tensor = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    # Divided by 1e-10, gradients would be 1e10 times as large where nothing is active
    return values / (norm + EPSILON).masked_fill(norm == 0, torch.inf)


def distance_map(first: Tensor, second: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted squared difference of two normalised taps, at each position.

    Parameters
    ----------
    first, second : Tensor
        Results of `unit_normalise`, of shape (B, C, H, W); a batch of one meets any batch.
    weights : Tensor, optional
        One weight per channel, of shape (C,), of any sign; without it every channel counts 1.

    Returns
    -------
    Tensor
        float32 of shape (B, 1, H, W): ``sum_c w_c (x_c - y_c)**2``.
    """
    difference = first - second
    # Fresh pages for large tensors cost more than the arithmetic: in place, where nobody looks back
    squared = difference.square() if difference.requires_grad else difference.square_()
    if weights is None:
        return squared.sum(dim=1, keepdim=True)
    return (squared.permute(0, 2, 3, 1) @ weights.to(squared.dtype)).unsqueeze(1)


def spatial_mean(distances: Tensor) -> Tensor:
    """Mean over the positions: (B, 1, H, W) -> (B, 1, 1, 1)."""
    return distances.mean(dim=(2, 3), keepdim=True)


def upsample(distances: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a distance map to `size` (height, width): (B, 1, h, w) -> (B, 1, H, W), bilinear.

    Corners are not aligned. The head comes first and this second, as in the reference.
    """
    return functional.interpolate(distances, size=size, mode="bilinear", align_corners=False)
