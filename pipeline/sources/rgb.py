"""Pixels of Pillow images in any mode, converted to RGB."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .source import ImageError


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: over white where it is transparent, 16-bit grey scaled to 8 bits.

    Raises
    ------
    ImageError
        Its pixels have no known range.
    """
    if image.mode == "F":
        raise ImageError("floating-point pixels have no known range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        return _from_deep_grey(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _from_deep_grey(grey: NDArray[np.integer]) -> Image.Image:
    """Scale grey levels from 0..65535 to 8 bits; Pillow's own conversion would clip them."""
    if grey.min() < 0 or grey.max() > 65535:
        low, high = int(grey.min()), int(grey.max())
        raise ImageError(f"grey levels from {low} to {high} fit neither 8 nor 16 bits")
    return Image.fromarray(
        ((grey.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    ).convert("RGB")
