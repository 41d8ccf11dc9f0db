"""The format of a row: taps end to end, as 16-bit fixed-point numbers or as float32."""

from dataclasses import dataclass

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

_CPU = torch.device("cpu")
_ROUNDING = 1.5 * 2**23
_AT_ONCE = 1 << 22  # values of a tap that a CPU quantises at a time
_IN_FIRST_CACHE = 1 << 14  # 16-bit values
_SHARED = 1 << 16  # values from which torch splits an operation across threads


class RowWriter:
    """Write taps into rows on a CPU; reuse the work buffers: touching fresh pages costs most.

    One writer serves one thread at a time.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self._values = fresh((0,), torch.float32, _CPU)
        self._whole = fresh((0,), torch.int16, _CPU)

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
        scaled = _Scaled.of(tap, rows, self.dtype)
        if self.dtype == "float32":
            scaled.write_unrounded()
        else:
            points, factors, target = scaled.points, scaled.factors, scaled.target
            images = max(1, _AT_ONCE // points[0].numel())
            for parts in zip(
                *(torch.split(x, images) for x in (points, factors, target)), strict=True
            ):
                self._quantise(*parts)
        return scaled.norms

    def _quantise(self, points: torch.Tensor, factors: torch.Tensor, target: torch.Tensor) -> None:
        """Write ``points * factors`` to `target`, rounded, with positions last."""
        size = points.numel()
        if size > len(self._values):
            self._values = fresh((size,), torch.float32, _CPU)
            self._whole = fresh((size,), torch.int16, _CPU)
        values = torch.mul(points, factors, out=self._values[:size].view(points.shape))
        # float32 numbers near 1.5 · 2**23 are integers: adding rounds, into the lowest bits
        values.add_(_ROUNDING)
        whole = self._whole[:size].view(points.shape).copy_(values.view(torch.int32))
        images, _, channels = points.shape
        positions = max(1, _IN_FIRST_CACHE // channels, _SHARED // (images * channels))
        sources, outs = torch.split(whole, positions, 1), torch.split(target, positions, 2)
        for source, out in zip(sources, outs, strict=True):
            out.copy_(source.mT)


def write_on_device(tap: torch.Tensor, rows: torch.Tensor, dtype: str) -> torch.Tensor:
    """Write a tap into rows as `RowWriter.write` does, in few operations on all of it.

    For devices, where starting an operation costs more than memory for it, and nothing waits for
    its end. Multiplication and rounding stay two operations: in one, the product would not be
    rounded, and the lowest bit of a row would be another than the CPU's for the same tap.
    """
    scaled = _Scaled.of(tap, rows, dtype)
    if dtype == "float32":
        scaled.write_unrounded()
    else:
        values = torch.mul(scaled.points, scaled.factors).add_(_ROUNDING)
        scaled.target.copy_(values.view(torch.int32).mT)
    return scaled.norms


@dataclass(frozen=True)
class _Scaled:
    """A tap [n, H·W, C], what its positions are multiplied by, and where that goes [n, C, H·W]."""

    points: torch.Tensor
    factors: torch.Tensor
    target: torch.Tensor
    norms: torch.Tensor

    @classmethod
    def of(cls, tap: torch.Tensor, rows: torch.Tensor, dtype: str) -> "_Scaled":
        count, channels, height, width = tap.shape
        points = tap.permute(0, 2, 3, 1).reshape(count, height * width, channels)
        norms: torch.Tensor = torch.linalg.vector_norm(
            points, dim=2, keepdim=True, dtype=torch.float32
        )
        total = norms.sum((1, 2))
        factors = norms.add_(EPSILON).reciprocal_().mul_(STEPS[dtype])
        return cls(points, factors, rows.view(count, channels, height * width), total)

    def write_unrounded(self) -> None:
        torch.mul(self.points.mT, self.factors.mT, out=self.target)


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
