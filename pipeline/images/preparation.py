"""How images come to one size: stretched, cropped or padded."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from ...cache.errors import UsageError, setting

FITS = ("stretch", "crop", "pad")
ICC = ("ignore", "convert")
_RESIZED = {
    "stretch": "bilinear, antialiased",
    "crop": "bilinear, antialiased, cropped to the aspect ratio",
    "pad": "bilinear, antialiased, padded with black to the aspect ratio",
}


@dataclass(frozen=True)
class Preparation:
    """How an image becomes the pixels that the trunk gets; part of the key of its row.

    Attributes
    ----------
    size
        (height, width) in pixels.
    fit
        What happens to images of another aspect ratio: "stretch" changes it, "crop" cuts off two
        sides equally, "pad" adds black bars.
    icc
        What happens to embedded colour profiles: "ignore" takes colours as they are stored,
        "convert" converts them to sRGB.

    Raises
    ------
    UsageError
        There is no such `fit` or `icc`.
    """

    size: tuple[int, int]
    fit: str = "stretch"
    icc: str = "ignore"

    def __post_init__(self) -> None:
        for name, choice, choices in (("fit", self.fit, FITS), ("icc", self.icc, ICC)):
            if choice not in choices:
                raise UsageError(f"unknown {setting(name)} {choice!r}: choose {', '.join(choices)}")

    def recipe(self) -> dict[str, Any]:
        """Return the entries of a row's recipe."""
        height, width = self.size
        profile = {} if self.icc == "ignore" else {"colours": "converted to sRGB"}
        return {"size": f"{height}x{width}", "resize": _RESIZED[self.fit], **profile}

    @classmethod
    def of_recipe(cls, size: tuple[int, int], resize: object, colours: object) -> "Preparation":
        """Return the preparation whose recipe has such entries; if there is none, the default."""
        every = (cls(size, fit, icc) for fit in FITS for icc in ICC)
        wanted = {"resize": resize, **({} if colours is None else {"colours": colours})}
        return next((one for one in every if wanted.items() <= one.recipe().items()), cls(size))

    def scale(self, image: Image.Image, shape: tuple[int, int] | None = None) -> Image.Image:
        """Scale an image, bilinear with antialiasing; one of the wanted size stays as it is.

        `shape` is the width and height that "pad" takes the aspect ratio from, if not the image's.
        """
        height, width = self.size
        if image.size == (width, height):
            return image
        if self.fit == "crop":
            box = _centred(image.size, (width, height))
            return image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        if self.fit == "pad":
            inner = _within((width, height), shape or image.size)
            place = ((width - inner[0]) // 2, (height - inner[1]) // 2)
            padded = Image.new(image.mode, (width, height))
            padded.paste(image.resize(inner, Image.Resampling.BILINEAR), place)
            return padded
        return image.resize((width, height), Image.Resampling.BILINEAR)

    def scale_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scale pixels [height, width, 3]; uint8 like image files, so that rows are the same."""
        if tuple(pixels.shape[:2]) == self.size:
            return pixels
        if pixels.dtype == torch.uint8:
            image = self.scale(Image.fromarray(pixels.contiguous().numpy()))
            return torch.from_numpy(np.array(image))
        height, width = self.size
        given = int(pixels.shape[1]), int(pixels.shape[0])
        if self.fit == "crop":
            left, top, right, bottom = (round(edge) for edge in _centred(given, (width, height)))
            pixels = pixels[top : max(bottom, top + 1), left : max(right, left + 1)]
        inner = _within((width, height), given) if self.fit == "pad" else (width, height)
        batch = pixels.permute(2, 0, 1)[None]
        scaled = functional.interpolate(batch, inner[::-1], mode="bilinear", antialias=True)
        if self.fit == "pad":
            left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
            edges = (left, width - inner[0] - left, top, height - inner[1] - top)
            scaled = functional.pad(scaled, edges, value=-1.0)
        return scaled[0].permute(1, 2, 0)


def _centred(size: tuple[int, int], shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the largest box of the aspect ratio of `shape` in the middle of `size`."""
    (width, height), scale = size, min(size[0] / shape[0], size[1] / shape[1])
    left, top = (width - shape[0] * scale) / 2, (height - shape[1] * scale) / 2
    return max(0.0, left), max(0.0, top), min(width, width - left), min(height, height - top)


def _within(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size of the aspect ratio of `shape` that fits into `size`."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
