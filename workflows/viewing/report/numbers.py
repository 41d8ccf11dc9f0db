"""Numbers in few bytes: quantised to 16 bits and written as base64, and matrices as PNG."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

_LEVELS = 65535


def packed(values: ArrayLike) -> dict[str, Any]:
    """Return unsigned integers below 65,536 as little-endian base64, for ``report.unpack``."""
    array = np.asarray(values)
    narrow = "<u1" if array.size == 0 or int(array.max()) < 256 else "<u2"
    data = np.ascontiguousarray(array, narrow).tobytes()
    return {"type": narrow[1:], "data": base64.b64encode(data).decode()}


def quantised(values: NDArray[np.floating]) -> dict[str, Any]:
    """Return finite numbers as 16-bit integers: a number is ``low + step * integer``.

    It is off by ``step / 2`` at most: the range over 131,070.
    """
    exact = np.asarray(values, np.float64)
    low = float(exact.min()) if exact.size else 0.0
    step = (float(exact.max()) - low) / _LEVELS if exact.size else 0.0
    integers = np.rint((exact - low) / (step or 1.0)).astype("<u2")
    data = base64.b64encode(integers.tobytes()).decode()
    return {"type": "u2", "low": low, "step": step, "data": data}


def colour_table(name: str = "Blues_r") -> NDArray[np.uint8]:
    """Return 256 colours of a colour map of Matplotlib: uint8 [256, 3]."""
    from matplotlib import colormaps

    colours = np.asarray(colormaps[name](np.arange(256)))[:, :3]
    table: NDArray[np.uint8] = np.rint(colours * 255).astype(np.uint8)
    return table


def matrix_png(matrix: NDArray[np.float32], limits: tuple[float, float], side: int) -> str:
    """Return a matrix as the data URI of a PNG of at most `side` pixels.

    Of a larger matrix each pixel is the mean of a block. `limits` are the distances of the first
    and of the last colour.
    """
    low, high = limits
    scaled = np.clip((matrix - low) / max(high - low, 1e-12), 0, 1)
    picture = Image.fromarray(np.rint(scaled * 255).astype(np.uint8))
    height, width = (min(edge, side) for edge in matrix.shape)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BOX)
    picture.putpalette(colour_table().tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
