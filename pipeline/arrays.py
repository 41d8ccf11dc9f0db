"""Images that are in memory already: tensors and arrays, their value ranges and their hashes."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from ..cache.errors import UsageError

ArrayLike: TypeAlias = torch.Tensor | NDArray[np.generic]
ValueRange: TypeAlias = tuple[float, float]


def check_range(low: float, high: float, value_range: ValueRange, advice: str) -> None:
    """Raise `UsageError` naming the range that came unless it lies within `value_range`."""
    if not (value_range[0] <= low and high <= value_range[1]):  # NaN fails too
        raise UsageError(
            f"values from {low:g} to {high:g} came, where values from {value_range[0]:g} to "
            f"{value_range[1]:g} were expected: {advice}"
        )


def array_content(image: ArrayLike, value_range: ValueRange | None) -> bytes:
    """Return the xxh3-128 over dtype, shape, value range and bytes of an image in memory."""
    array = _to_numpy(image)
    digest = xxhash.xxh3_128(f"{array.dtype}{array.shape}{value_range}".encode())
    digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.digest()


def pixels_of(
    image: ArrayLike, value_range: ValueRange | None, size: tuple[int, int] | None
) -> torch.Tensor:
    """Bring an image in memory to the form that the backbone's stage takes.

    Parameters
    ----------
    image
        A tensor [3, height, width] or an array [height, width, 3]; uint8 (0 to 255), or floating
        point with values within `value_range`.
    value_range
        (lowest, highest) possible value, such as (0, 1) or (-1, 1); None for uint8.
    size
        (height, width) to scale to, bilinear with antialiasing; None keeps the size.

    Returns
    -------
    Tensor [height, width, 3]: uint8, or float32 from -1 to 1

    Raises
    ------
    UsageError
        The shape, dtype or range does not fit; the message shows what came.
    """
    pixels = _channels_last(image)
    if pixels.dtype == torch.uint8:
        if value_range not in (None, (0, 255)):
            raise UsageError(f"uint8 images go from 0 to 255, not over {value_range}")
        return pixels if size is None else _resize_bytes(pixels, size)
    if not pixels.is_floating_point():
        raise UsageError(f"images must be uint8 or floating point, not {pixels.dtype}")
    low, high = float(pixels.min()), float(pixels.max())
    if value_range is None:
        raise UsageError(
            "floating-point images need value_range=(0, 1) or (-1, 1); "
            f"this one has values from {low:g} to {high:g}"
        )
    check_range(low, high, value_range, "give value_range as it is")
    start, stop = value_range
    scaled = (pixels.to(torch.float32) - start) * (2 / (stop - start)) - 1
    return scaled if size is None else _resize_floats(scaled, size)


def _channels_last(image: ArrayLike) -> torch.Tensor:
    tensor = isinstance(image, torch.Tensor)
    form = "[3, height, width]" if tensor else "[height, width, 3]"
    if image.ndim != 3 or image.shape[0 if tensor else 2] != 3:
        kind = "a tensor" if tensor else "an array"
        raise UsageError(f"{kind} of one image must be {form}, not {list(image.shape)}")
    if isinstance(image, torch.Tensor):
        return image.detach().cpu().permute(1, 2, 0)
    return torch.from_numpy(np.array(image))


def _to_numpy(image: ArrayLike) -> NDArray[np.generic]:
    return image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else image


def _resize_bytes(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Scale as image files are scaled, so that an array gives the same row as its file."""
    image = Image.fromarray(pixels.numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image))


def _resize_floats(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    image = pixels.permute(2, 0, 1)[None]
    scaled = functional.interpolate(image, size, mode="bilinear", antialias=True)
    return scaled[0].permute(1, 2, 0)


def common_size(images: Sequence[torch.Tensor]) -> tuple[int, int]:
    """Return the (height, width) that all images [height, width, 3] share.

    Raises
    ------
    UsageError
        They have different sizes; the message names two of them.
    """
    sizes = list(dict.fromkeys((int(image.shape[0]), int(image.shape[1])) for image in images))
    if len(sizes) > 1:
        raise UsageError(
            f"the images have different sizes, such as {sizes[0]} and {sizes[1]} "
            "(height, width): give size=N to scale them all"
        )
    return sizes[0]
