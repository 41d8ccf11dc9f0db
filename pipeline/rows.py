"""How a row is kept: taps end to end, as fixed-point numbers of 16 bits or as float32."""

import torch

from .layout import RowLayout

ROW_DTYPES = ("uint16", "float32")
STEPS = {"uint16": 65535, "int16": 32767, "float32": 1}
"""Stored number that stands for 1.0, by row dtype: value = stored / steps."""


def quantise(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """Turn values in [-1, 1] into stored numbers, rounding to the nearest step.

    The step is 1/65535 for ``uint16`` (values below 0 become 0), 1/32767 for ``int16``; ``float32``
    passes through. The largest error is half a step. `values` (float32) are overwritten: rows are
    long, and fetching fresh memory for each step would take longer than the arithmetic.
    """
    if dtype == "float32":
        return values
    steps = STEPS[dtype]
    lowest = 0 if dtype == "uint16" else -steps
    whole = values.mul_(steps).round_().clamp_(lowest, steps)
    return whole.to(getattr(torch, dtype))


def row_taps(rows: torch.Tensor, layout: RowLayout, dtype: str) -> list[torch.Tensor]:
    """Return the unit-normalised taps that rows hold: float32 [n, C, H, W] for each tap.

    With `lpipstore.pipeline.layers` they give spatial maps and the values of single layers.
    """
    return [
        rows[:, columns].to(torch.float32).div_(STEPS[dtype]).view(-1, *shape)
        for columns, shape in zip(layout.slices, layout.taps, strict=True)
    ]
