"""Unit-normalise a tap, as a pure differentiable function.

Formulas: Zhang, Isola, Efros, Shechtman and Wang, "The Unreasonable Effectiveness of Deep Features
as a Perceptual Metric", CVPR 2018, equation 1.
"""

import torch
from torch import Tensor

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
        float32 (float64 for float64 input), same shape: ``f / (sqrt(sum_c f**2) + 1e-10)``, in
        [-1, 1] ([0, 1] after a ReLU). Where all channels are 0, result and gradient are 0.
    """
    values = widen(tap)
    return values / divisor(length(values))


def widen(tap: Tensor) -> Tensor:
    """Return the tap in float32, or in float64 if it is: in float16, the epsilon would be 0."""
    return tap if tap.dtype == torch.float64 else tap.float()


def length(values: Tensor) -> Tensor:
    """Return the L2 norm over the channels: (B, C, H, W) -> (B, 1, H, W)."""
    norm: Tensor = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    return norm


def divisor(norm: Tensor) -> Tensor:
    """Return what activations of this norm are divided by; infinity where all are 0."""
    # Dividing by 1e-10 would make gradients 1e10 times as large where nothing is active
    return (norm + EPSILON).masked_fill(norm == 0, torch.inf)
