"""What an exported file should return: the arithmetic of lpipstore, in float64.

It shares the trunk with `graph`, and neither its preprocessing nor its precision.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backbones.backbone import Backbone
from ..distances.heads import Head, column_weights
from ..distances.maps import distance_map, spatial_mean, upsample
from ..features.normalise import unit_normalise
from .card import ModelCard

LARGEST_DEVIATION = 1e-5

Arrays = Sequence[NDArray[Any]]


class Reference:
    """Computes the outputs of a file in float64.

    Parameters
    ----------
    backbone, head
        Those of the file.
    card
        Its form, pixels and outputs.
    """

    def __init__(self, backbone: Backbone, head: Head, card: ModelCard) -> None:
        self._backbone = backbone.to(dtype=torch.float64)
        self._head = head
        self._card = card

    def __call__(self, *batches: NDArray[Any]) -> list[NDArray[np.float64]]:
        """Return the outputs for batches [B, 3, H, W] of pixels as the file takes them."""
        with torch.no_grad():
            taps = [self._taps(batch) for batch in batches]
            size = (batches[0].shape[2], batches[0].shape[3])
            if self._card.form == "embedding":
                return [self._row(taps[0], size)]
            return [output.numpy() for output in self._distances(taps[0], taps[1], size)]

    def _taps(self, batch: NDArray[Any]) -> list[Tensor]:
        images = _signed(torch.from_numpy(batch), self._card.pixels)
        return [unit_normalise(tap) for tap in self._backbone.taps_of(images)]

    def _row(self, taps: list[Tensor], size: tuple[int, int]) -> NDArray[np.float64]:
        columns = column_weights(self._head, self._backbone.layout(*size)).astype(np.float64)
        row = torch.cat([tap.flatten(1) for tap in taps], dim=1).numpy()
        return np.asarray(row * np.sqrt(columns))

    def _distances(
        self, first: list[Tensor], second: list[Tensor], size: tuple[int, int]
    ) -> list[Tensor]:
        maps = [
            distance_map(x, y, torch.tensor(weights))
            for x, y, weights in zip(first, second, self._head.weights, strict=True)
        ]
        distance = torch.stack([spatial_mean(each).flatten() for each in maps]).sum(0)
        if self._card.spatial == "no":
            return [distance]
        return [distance, torch.stack([upsample(each, size) for each in maps]).sum(0)]


def _signed(batch: Tensor, pixels: str) -> Tensor:
    """Return pixels in [-1, 1], as `lpips` takes them."""
    exact = batch.to(torch.float64)
    if pixels == "uint8":
        return exact / 127.5 - 1
    return 2 * exact - 1 if pixels == "unit" else exact


def deviation(found: Arrays, wanted: Arrays, form: str) -> float:
    """Return the largest deviation of a file's outputs from the reference.

    Parameters
    ----------
    found, wanted
        Outputs of the file and of `Reference`.
    form
        "pair": the deviation of distances, and that of a map as a share of its largest value
        where that is above 1; "embedding": the deviation of rows and of the squared distances of
        all pairs of rows.

    Returns
    -------
    float
        NaN if an output is not finite.
    """
    parts = [
        np.abs(x.astype(np.float64) - y).max() / max(1.0, float(y.max()))
        if x.shape == y.shape
        else np.inf
        for x, y in zip(found, wanted, strict=True)
    ]
    if form == "embedding" and np.isfinite(parts).all():
        parts.append(np.abs(_squared(found[0]) - _squared(wanted[0])).max())
    return float(np.max(parts))


def _squared(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return the squared distances of all pairs of rows, float64 [n, n], by their differences."""
    exact = rows.astype(np.float64)
    return np.stack([np.square(exact - row).sum(1) for row in exact])
