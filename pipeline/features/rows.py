"""How a row is kept: taps end to end, as fixed-point numbers of 16 bits or as float32."""

import torch

from ..backbones.layout import RowLayout
from ..common.memory import fresh
from .normalise import EPSILON

ROW_DTYPES = ("uint16", "float32")
STEPS = {"uint16": 65535, "int16": 32767, "float32": 1}
"""Stored number that stands for 1.0, by row dtype: value = stored / steps."""

ROW_VERSION = "2"
"""Version of the arithmetic from pixels to rows: part of every key, raised when a bit changes."""

VERSION_ENTRY = "row_version"
"""What it is called in the recipe of rows."""

_ROUNDING = 1.5 * 2**23
_AT_ONCE = 1 << 22  # numbers of a tap that are brought into rows at a time
_IN_FIRST_CACHE = 1 << 14  # numbers of 16 bits
_SHARED = 1 << 16  # numbers from which on torch shares an operation between threads


class RowWriter:
    """Brings taps into rows; keeps the memory that it computes in, as fresh pages cost most.

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
            Where they belong: [n, C·H·W], float32, or int16 for the bits of whole numbers. Filled
            in C, H, W order with ``f / (sqrt(sum_c f**2) + 1e-10)``: rounded to the nearest step
            of 1/65535 (``uint16``, for taps that are never under 0) or 1/32767 (``int16``), off by
            half a step at most; as it is for ``float32``.

        Returns
        -------
        Tensor of shape (n,), float32
            Sums of the norms. Not finite where a row is not, or where squares overflow.
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
        """Write ``points * factors`` to `target`, rounded and with positions last."""
        size = points.numel()
        if size > len(self._values):
            self._values = fresh((size,), torch.float32, self._device)
            self._whole = fresh((size,), torch.int16, self._device)
        values = torch.mul(points, factors, out=self._values[:size].view(points.shape))
        # In float32, numbers near 1.5 · 2**23 are whole: the sum is rounded, in its lowest bits
        values.add_(_ROUNDING)
        whole = self._whole[:size].view(points.shape).copy_(values.view(torch.int32))
        images, _, channels = points.shape
        positions = max(1, _IN_FIRST_CACHE // channels, _SHARED // (images * channels))
        sources, outs = torch.split(whole, positions, 1), torch.split(target, positions, 2)
        for source, out in zip(sources, outs, strict=True):
            out.copy_(source.mT)


def row_taps(rows: torch.Tensor, layout: RowLayout, dtype: str) -> list[torch.Tensor]:
    """Return the unit-normalised taps that rows hold: float32 [n, C, H, W] for each tap.

    With `lpipstore.pipeline.distances.maps` they give spatial maps and the values of layers.
    """
    return [
        rows[:, columns].to(torch.float32).div_(STEPS[dtype]).view(-1, *shape)
        for columns, shape in zip(layout.slices, layout.taps, strict=True)
    ]


def centre_of(rows: torch.Tensor) -> torch.Tensor:
    """Return float32 [length]: the mean row, in stored units, rounded to a whole step for integers.

    Any centre gives the same distances, and a whole one makes ``row - centre`` exact in float32.
    """
    mean = rows.to(torch.float32).mean(0)
    return mean if rows.dtype == torch.float32 else mean.round_()
