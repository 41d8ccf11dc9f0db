"""Distance maps: where two images differ, tap by tap, summed as in `lpips`."""

from torch import Tensor
from torch.nn import functional


def distance_map(
    first: Tensor, second: Tensor, weights: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Compute the weighted squared difference of two normalised taps at each position.

    Parameters
    ----------
    first, second : Tensor
        Results of `unit_normalise`, of shape (B, C, H, W); a batch of one broadcasts.
    weights : Tensor, optional
        One weight per channel, of shape (C,), of any sign; by default, all are 1.
    dropout : float
        Probability with which a square is left out; the others grow accordingly.

    Returns
    -------
    Tensor
        float32 of shape (B, 1, H, W): ``sum_c w_c (x_c - y_c)**2``.
    """
    difference = first - second
    # Fresh pages for large tensors cost more than the arithmetic: work in place without gradients
    squared = difference.square() if difference.requires_grad else difference.square_()
    if dropout:
        squared = functional.dropout(squared, dropout)
    return weighted_sum(squared, weights)


def weighted_sum(squared: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum over the channels, each times its weight: (B, C, H, W) -> (B, 1, H, W)."""
    if weights is None:
        return squared.sum(dim=1, keepdim=True)
    return (squared.permute(0, 2, 3, 1) @ weights.to(squared.dtype)).unsqueeze(1)


def spatial_mean(distances: Tensor) -> Tensor:
    """Return the mean over the positions: (B, 1, H, W) -> (B, 1, 1, 1)."""
    return distances.mean(dim=(2, 3), keepdim=True)


def upsample(distances: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a distance map to `size` (height, width): (B, 1, h, w) -> (B, 1, H, W), bilinear.

    Corners are not aligned. The head is applied before resizing, as in the reference.
    """
    return functional.interpolate(distances, size=size, mode="bilinear", align_corners=False)
