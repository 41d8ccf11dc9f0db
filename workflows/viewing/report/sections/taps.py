"""Which taps of the backbone a trained head listens to."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .....pipeline.common.text import printable
from ..contract import Content, Subject

_WIDE, _HIGH = 240, 36  # of a sparkline, in units of its own
_POINTS = 60


class Taps:
    """The weights of a head, tap by tap, beside those at the start."""

    name = "taps"
    title = "Weights of the head"
    kinds = ("train",)

    def content(self, subject: Subject) -> Content:
        """Return a line for each tap."""
        trained, start = subject.training.heads
        names = str(subject.run.manifest["taps"]).split(",")
        shares, before = _shares(trained.weights), _shares(start.weights) if start else None
        most = max(float(np.max(shares)), 0.0 if before is None else float(np.max(before)))
        lines = []
        for n, (name, weights) in enumerate(zip(names, trained.weights, strict=True)):
            own: dict[str, Any] = {
                "name": printable(name),
                "channels": len(weights),
                "used": int((weights != 0).sum()),
                "share": float(shares[n]),
                "bar": 100 * float(shares[n]) / (most or 1),
                "line": _sparkline(weights),
                "half": _half(weights),
            }
            if before is not None:
                own |= {
                    "before": float(before[n]),
                    "bar_before": 100 * float(before[n]) / (most or 1),
                }
            lines.append(own)
        return Content(
            "A distance is a weighted sum over the channels of these layers, the first one nearest "
            "to the pixels. Bars are each layer's share of all weight; curves are its channels, "
            "the heaviest first.",
            {"lines": lines, "start": start.name if start else None, "wide": _WIDE, "high": _HIGH},
        )


def _shares(weights: tuple[NDArray[np.float32], ...]) -> NDArray[np.float64]:
    sums = np.array([np.abs(tap).sum(dtype=np.float64) for tap in weights])
    return sums / (sums.sum() or 1)


def _half(weights: NDArray[np.float32]) -> int:
    """Return how many of the heaviest channels have half of the weight."""
    falling = np.sort(np.abs(weights))[::-1].cumsum(dtype=np.float64)
    return int(np.searchsorted(falling, falling[-1] / 2)) + 1 if falling[-1] > 0 else 0


def _sparkline(weights: NDArray[np.float32]) -> str:
    """Return the points of a line that falls from the heaviest channel to the lightest."""
    ordered = np.sort(weights)[::-1]
    spaced = np.linspace(0, len(ordered) - 1, min(len(ordered), _POINTS))
    places = np.unique(spaced.round().astype(int))
    x = places / max(1, len(ordered) - 1) * _WIDE
    y = _HIGH - 1 - np.clip(ordered[places] / (ordered[0] or 1), 0, 1) * (_HIGH - 2)
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
