"""The format of a row: taps end to end, as 16-bit fixed-point numbers or as float32."""

import torch

from ..backbones.layout import RowLayout
from ..common.memory import fresh
from .normalise import EPSILON

ROW_DTYPES = ("uint16", "float32")
STEPS = {"uint16": 65535, "int16": 32767, "float32": 1}
"""Stored number that stands for 1.0, by row dtype: value = stored / steps."""

ROW_VERSION = "2"
"""Version of the arithmetic from pixels to rows: part of every key, raised when any bit changes."""

VERSION_ENTRY = "row_version"
"""Name of the version in the recipe of rows."""

_ROUNDING = 1.5 * 2**23
_AT_ONCE = 1 << 22  # values of a tap that are quantised at a time
_IN_FIRST_CACHE = 1 << 14  # 16-bit values
_SHARED = 1 << 16  # values from which torch splits an operation across threads


class RowWriter:
    """Write taps into rows; reuse the work buffers, because touching fresh pages costs most.

    One writer serves one thread at a time.
    """

    def __init__(self, dtype: str, device: torch.device) -> None:
        self.dtype = dtype
        self._device = device
        self._values = fresh((0,), torch.float32, device)
        self._whole = fresh((0,), torch.int16, device)

    def write(self, tap: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Unit-normalise a tap over its channels and write it into rows.

        Parameters
        ----------
        tap
            Activations [n, C, H, W], of any floating dtype; fastest in `channels_last`.
        rows
            Output [n, C·H·W], float32, or int16 for the bits of 16-bit integers. Filled in C, H, W
            order with ``f / (sqrt(sum_c f**2) + 1e-10)``: rounded to the nearest multiple of
            1/65535 (``uint16``, for nonnegative taps) or 1/32767 (``int16``), with an error of at
            most half a step; not rounded for ``float32``.

        Returns
        -------
        Tensor of shape (n,), float32
            The sum of each image's norms: not finite if the row is not or if squares overflow.
        """
        count, channels, height, width = tap.shape
        points = tap.permute(0, 2, 3, 1).reshape(count, height * width, channels)
        norms: torch.Tensor = torch.linalg.vector_norm(
            points, dim=2, keepdim=True, dtype=torch.float32
        )
        total: torch.Tensor = norms.sum((1, 2))
        factors = norms.add_(EPSILON).reciprocal_().mul_(STEPS[self.dtype])
        target = rows.view(count, channels, height * width)
        if self.dtype == "float32":
            torch.mul(points.mT, factors.mT, out=target)
        else:
            images = max(1, _AT_ONCE // points[0].numel())
            for parts in zip(
                *(torch.split(x, images) for x in (points, factors, target)), strict=True
            ):
                self._quantise(*parts)
        return total

    def _quantise(self, points: torch.Tensor, factors: torch.Tensor, target: torch.Tensor) -> None:
        """Write ``points * factors`` to `target`, rounded, with positions last."""
        size = points.numel()
        if size > len(self._values):
            self._values = fresh((size,), torch.float32, self._device)
            self._whole = fresh((size,), torch.int16, self._device)
        values = torch.mul(points, factors, out=self._values[:size].view(points.shape))
        # float32 numbers near 1.5 · 2**23 are integers: adding rounds, into the lowest bits
        values.add_(_ROUNDING)
        whole = self._whole[:size].view(points.shape).copy_(values.view(torch.int32))
        images, _, channels = points.shape
        positions = max(1, _IN_FIRST_CACHE // channels, _SHARED // (images * channels))
        sources, outs = torch.split(whole, positions, 1), torch.split(target, positions, 2)
        for source, out in zip(sources, outs, strict=True):
            out.copy_(source.mT)


def row_taps(rows: torch.Tensor, layout: RowLayout, dtype: str) -> list[torch.Tensor]:
    """Return the unit-normalised taps of rows: float32 [n, C, H, W] for each tap.

    `lpipstore.pipeline.distances.maps` turns them into spatial maps and per-layer values.
    """
    return [
        rows[:, columns].to(torch.float32).div_(STEPS[dtype]).view(-1, *shape)
        for columns, shape in zip(layout.slices, layout.taps, strict=True)
    ]


def centre_of(rows: torch.Tensor) -> torch.Tensor:
    """Return the mean row, float32 [length], in stored units; rounded to integers for integer rows.

    Any centre gives the same distances, and an integer one makes ``row - centre`` exact in float32.
    """
    mean = rows.to(torch.float32).mean(0)
    return mean if rows.dtype == torch.float32 else mean.round_()
