"""Carry a mask from pixels to the positions of a tap, by area."""

import torch
from torch import Tensor


def by_area(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Average a mask over the area of each position: (B, 1, H, W) -> (B, 1, h, w).

    The image is divided into h by w equal rectangles, one for each position of a tap. A pixel that
    lies in several of them counts in each by the share of its area (`adaptive_avg_pool2d` would
    count it in each as a whole). Overlaps are counted in whole numbers, so that a mask of ones
    gives ones, and one of zeros gives zeros, to the bit.

    Parameters
    ----------
    mask : Tensor
        Floating, one weight per pixel.
    size : (int, int)
        Height and width of the tap.
    """
    height, width = mask.shape[2], mask.shape[3]
    lines = _overlaps(height, size[0], mask)
    columns = _overlaps(width, size[1], mask)
    return (lines @ mask / height) @ columns.T / width


def _overlaps(pixels: int, positions: int, like: Tensor) -> Tensor:
    """Return how much of each position each pixel covers: (positions, pixels).

    The unit is the side divided by ``pixels * positions``: a pixel is `positions` long, and each
    row adds up to `pixels`.
    """
    place = torch.arange(positions, device=like.device).unsqueeze(1) * pixels
    pixel = torch.arange(pixels, device=like.device).unsqueeze(0) * positions
    ends = torch.minimum(place + pixels, pixel + positions)
    return (ends - torch.maximum(place, pixel)).clamp(min=0).to(like.dtype)


def weighted_mean(distances: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over the positions: (B, 1, h, w) and weights -> (B, 1, 1, 1).

    0, with gradients of 0, where all weights of an image are 0.
    """
    total = weights.sum(dim=(2, 3), keepdim=True)
    summed = (distances * weights).sum(dim=(2, 3), keepdim=True)
    return summed / total.masked_fill(total == 0, 1)
