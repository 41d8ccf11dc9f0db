"""Images in memory: tensors and arrays, their value ranges and their hashes."""

from typing import TypeAlias

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from ...cache.errors import UsageError

ArrayLike: TypeAlias = torch.Tensor | NDArray[np.generic]
ValueRange: TypeAlias = tuple[float, float]

_SLACK = 1e-5  # fraction of the range: tolerates rounding


def take_range(value_range: object) -> ValueRange | None:
    """Check a value range and return it as two floats; None stays None.

    Raises
    ------
    UsageError
        It is not (lowest, highest), two finite numbers.
    """
    if value_range is None:
        return None
    try:
        low, high = map(float, value_range)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"value_range must be two numbers, such as (0, 1) or (-1, 1), not {value_range!r}"
        ) from error
    if not low < high < np.inf or low == -np.inf:
        raise UsageError(f"value_range must be (lowest, highest), and {value_range!r} came")
    return low, high


def take_image(image: object, value_range: ValueRange | None) -> torch.Tensor:
    """Check an image in memory and convert it to the form that the extractor takes.

    Parameters
    ----------
    image
        A tensor [3, height, width] or an array [height, width, 3]; uint8 (0 to 255), or floating
        point with values within `value_range`.
    value_range
        (lowest, highest) possible value, such as (0, 1) or (-1, 1); None for uint8.

    Returns
    -------
    Tensor [height, width, 3]: uint8, or float32 from -1 to 1

    Raises
    ------
    UsageError
        Kind, shape, dtype or range is wrong; the message shows what was received.
    """
    pixels = _channels_last(image)
    if pixels.dtype == torch.uint8:
        if value_range not in (None, (0, 255)):
            raise UsageError(f"uint8 images go from 0 to 255, not over {value_range}")
        return pixels
    if not pixels.is_floating_point():
        raise UsageError(f"images must be uint8 or floating point, not {pixels.dtype}")
    pixels = pixels.to(torch.float32)
    low, high = float(pixels.min()), float(pixels.max())
    if value_range is None:
        raise UsageError(
            "floating-point images need value_range=(0, 1) or (-1, 1); "
            f"this one has values from {low:g} to {high:g}"
        )
    start, stop = value_range
    slack = _SLACK * (stop - start)
    if not (start - slack <= low and high <= stop + slack):  # NaN fails too
        raise UsageError(
            f"values from {low:.6g} to {high:.6g} came, where values from {start:g} to {stop:g} "
            "were expected: give value_range as it is"
        )
    return ((pixels - start) * (2 / (stop - start)) - 1).clamp_(-1, 1)


def pixels_content(pixels: torch.Tensor) -> bytes:
    """Return the xxh3-128 over dtype, shape and bytes of a result of `take_image`."""
    array = pixels.contiguous().numpy()
    dtype = str(pixels.dtype).removeprefix("torch.")  # NumPy takes 10 µs for the same name
    digest = xxhash.xxh3_128(f"{dtype}{array.shape}".encode())
    digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.digest()


def _channels_last(image: object) -> torch.Tensor:
    if not isinstance(image, torch.Tensor | np.ndarray):
        raise UsageError(
            f"an image in memory must be a torch tensor or a numpy array, not a "
            f"{type(image).__name__}: numpy.asarray(image) makes one of a Pillow image"
        )
    tensor = isinstance(image, torch.Tensor)
    form = "[3, height, width]" if tensor else "[height, width, 3]"
    if image.ndim != 3 or image.shape[0 if tensor else 2] != 3 or 0 in image.shape:
        kind = "a tensor" if tensor else "an array"
        raise UsageError(f"{kind} of one image must be {form}, not {list(image.shape)}")
    if isinstance(image, torch.Tensor):
        return image.detach().cpu().permute(1, 2, 0)
    try:
        return torch.from_numpy(image.astype(image.dtype.newbyteorder("=")))  # a copy, always
    except TypeError as error:
        raise UsageError(f"images must be uint8 or floating point, not {image.dtype}") from error


def to_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """Return pixels of 0 to 255; floating-point ones from -1 to 1 are rounded."""
    if pixels.dtype == torch.uint8:
        return pixels
    return pixels.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
