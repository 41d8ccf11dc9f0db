"""Distance maps: where two images differ, tap by tap, summed as in `lpips`."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..backbones.layout import RowLayout
from ..features.rows import row_taps
from .heads import Head


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


@dataclass(frozen=True)
class PairMap:
    """Where two images differ.

    Attributes
    ----------
    taps : tuple of float
        The contribution of each tap; they add up to the distance.
    map : Tensor
        float32 of shape (H, W). Its mean is the distance but for what interpolation changes: taps
        have fewer positions than pixels.
    """

    taps: tuple[float, ...]
    map: Tensor

    @property
    def distance(self) -> float:
        """The LPIPS distance of the images."""
        return sum(self.taps)


def map_of_rows(
    rows: Tensor, layout: RowLayout, dtype: str, head: Head, size: tuple[int, int]
) -> PairMap:
    """Compute where two images differ, from their rows, in float64.

    Parameters
    ----------
    rows : Tensor
        The two stored rows, of shape (2, length).
    layout, dtype
        Of the rows.
    head : Head
        The channel weights.
    size : (int, int)
        Height and width of the images.
    """
    taps, total = [], torch.zeros(1, 1, *size, dtype=torch.float64, device=rows.device)
    for tap, weight in zip(row_taps(rows, layout, dtype), head.weights, strict=True):
        exact = tap.double()
        weights = torch.from_numpy(weight.copy()).to(exact)
        differences = distance_map(exact[:1], exact[1:], weights)
        taps.append(float(spatial_mean(differences)))
        total += upsample(differences, size)
    return PairMap(tuple(taps), total[0, 0].float().cpu())
