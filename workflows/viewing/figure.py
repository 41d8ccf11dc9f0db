"""The figure of a spatial map: two images, the map with its scale, the contribution of each tap.

Drawn by matplotlib without pyplot, which would keep figures and choose a backend.
"""

import os
import warnings
from typing import IO, TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ...pipeline.common.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.image import AxesImage

FORMATS = (".png", ".pdf", ".svg")

_PANEL = 2.3  # inches, the longer side of an image
_BESIDE, _LOWEST = 2.4, 1.5  # inches: scale and taps, and the height that they need
_BARS = 1.1  # inches, the width of the bars
_DPI = 200
_NARROW = 1.05  # inches that the shortest title needs
_LETTERS = 13  # of a title, per inch
_BAR = "#7a3b8f"


class Differences(Protocol):
    """What is drawn, such as a `lpipstore.workflows.viewing.map.SpatialMap`."""

    @property
    def first(self) -> str:
        """Name of the first image."""

    @property
    def second(self) -> str:
        """Name of the second image."""

    @property
    def distance(self) -> float:
        """The sum of the taps."""

    @property
    def taps(self) -> dict[str, float]:
        """Contribution of each tap."""

    @property
    def map(self) -> NDArray[np.float32]:
        """float32 [height, width]."""

    @property
    def first_pixels(self) -> NDArray[np.uint8]:
        """uint8 [height, width, 3]."""

    @property
    def second_pixels(self) -> NDArray[np.uint8]:
        """uint8 [height, width, 3]."""

    @property
    def metric(self) -> str:
        """The metric in a few words."""


def draw_map(
    found: Differences, file: IO[bytes], kind: str, *, overlay: bool, scale: float | None
) -> None:
    """Draw a spatial map into an open file, as "png", "pdf" or "svg"."""
    from matplotlib.figure import Figure

    height, width = found.map.shape
    panel_width = max(_NARROW, _PANEL * min(1.0, width / height))
    panel_height = _PANEL * min(1.0, height / width)
    figure = Figure(
        figsize=(3 * panel_width + _BESIDE, max(panel_height, _LOWEST) + 0.45),
        dpi=_DPI,
        layout="constrained",
    )
    widths = [panel_width, panel_width, panel_width, _BARS]
    first, second, middle, taps = figure.subplots(1, 4, width_ratios=widths)
    _picture(first, found.first_pixels, f"A  {_short(found.first, panel_width)}")
    _picture(second, found.second_pixels, f"B  {_short(found.second, panel_width)}")
    norm, colour_map = _colours(found.map, scale)
    drawn = _map(middle, found, overlay=overlay, norm=norm, colour_map=colour_map)
    middle.set_title(f"distance {found.distance:.4f}", fontsize=8)
    share = 0.08 / (panel_height * width / height)
    place = middle.inset_axes((1 + share / 2, 0, share, 1))  # as high as the map
    bar = figure.colorbar(drawn, cax=place, extend=_extend(found.map, norm))
    bar.ax.tick_params(labelsize=6, width=0.5, length=2)
    bar.outline.set_linewidth(0.5)
    bar.set_label(f"{found.metric}, each pixel", fontsize=6.5)
    _taps(taps, found.taps)
    taps.set_box_aspect(max(panel_height, 0.9) / _BARS)
    with warnings.catch_warnings():
        # A sign that no font has is drawn as a box: nothing that anybody could mend
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(file, format=kind)


def _picture(axes: "Axes", pixels: NDArray[np.uint8], title: str) -> None:
    axes.imshow(pixels, interpolation="nearest" if len(pixels) < 128 else None)
    axes.set_title(title, fontsize=8, parse_math=False)
    axes.set_axis_off()


def _map(
    axes: "Axes", found: Differences, *, overlay: bool, norm: "Normalize", colour_map: str
) -> "AxesImage":
    axes.set_axis_off()
    if not overlay:
        return axes.imshow(found.map, cmap=colour_map, norm=norm)
    grey = found.first_pixels.astype(np.float64) @ [0.299, 0.587, 0.114]
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
    # Opaque where images differ most: small differences let the picture through
    extent = np.maximum(abs(norm.vmin or 0.0), abs(norm.vmax or 0.0))
    alpha = 0.15 + 0.7 * np.sqrt(np.clip(np.abs(found.map) / extent, 0, 1))
    return axes.imshow(found.map, cmap=colour_map, norm=norm, alpha=alpha)


def _colours(values: NDArray[np.float32], scale: float | None) -> tuple["Normalize", str]:
    """Return the scale: from 0, or on both sides of it for heads of negative weights."""
    from matplotlib.colors import Normalize

    largest = scale or float(np.abs(values).max()) or 1.0
    if values.min() < 0:
        return Normalize(-largest, largest), "RdBu_r"
    return Normalize(0, largest), "inferno"


def _extend(values: NDArray[np.float32], norm: "Normalize") -> str:
    """Return at which ends of the scale values go beyond it."""
    above, below = values.max() > (norm.vmax or 0.0), values.min() < (norm.vmin or 0.0)
    return "both" if above and below else "max" if above else "min" if below else "neither"


def _taps(axes: "Axes", taps: dict[str, float]) -> None:
    places = np.arange(len(taps))
    axes.barh(places, list(taps.values()), color=_BAR, height=0.7)
    axes.set_yticks(places, list(taps), fontsize=6)
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=3)
    axes.tick_params(axis="x", labelsize=6, width=0.5, length=2)
    axes.tick_params(axis="y", length=0)
    axes.set_title("distance by tap", fontsize=8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_linewidth(0.5)
    if all(value == 0 for value in taps.values()):
        axes.set_xlim(0, 1)


def _short(name: str, inches: float) -> str:
    """Return the last part of a name, shortened in its middle to the width of a panel."""
    shown = os.path.basename(printable(name)) or printable(name)
    room = int(inches * _LETTERS) - 3
    half = (room - 1) // 2
    return shown if len(shown) <= room else f"{shown[:half]}…{shown[-half:]}"
