"""Images to check and to calibrate a model with: read from files, or drawn."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.backbones.backbone import Backbone
from ...pipeline.common.text import printable
from ...pipeline.graphs.card import ModelCard
from ...pipeline.images.data import prepared_pixels
from ...pipeline.images.preparation import Preparation
from ...pipeline.sources.arrays import to_uint8
from ...pipeline.sources.source import ImageError
from ...pipeline.sources.sources import Sources
from ..session.screen import Screen
from ..session.settings import DEFAULT_SIZE, Settings, parse_size

Batch: TypeAlias = tuple[NDArray[Any], ...]
"""The inputs of a model: one batch [B, 3, H, W], or two."""

_SIZES = ((64, 64), (65, 97), DEFAULT_SIZE)
_IMAGES = 5
_LARGE, _OF_LARGE = 128 * 128, 2  # pixels from which fewer images do
_NOISE = 16


def sample_batches(
    names: Sequence[str] | None,
    sources: Sources,
    card: ModelCard,
    backbone: Backbone,
    settings: Settings,
    screen: Screen,
) -> list[Batch]:
    """Return inputs to check a model with: several images and a single one, at each of its sizes.

    Parameters
    ----------
    names
        Images that `sources` can read, of which the first usable ones are taken; None draws some.

    Raises
    ------
    UsageError
        The images are too small for the backbone.
    LpipstoreError
        No image can be read.
    """
    batches = []
    for size in _sizes(card, backbone, settings):
        count = _OF_LARGE if size[0] * size[1] > _LARGE else _IMAGES
        how = Preparation(size, settings.fit, settings.icc)
        if names is None:
            images = as_input(_drawn(count, how), card.pixels)
        else:
            images = read_images(names, sources, how, card.pixels, screen, count)[0]
            if not len(images):
                raise LpipstoreError(
                    f"none of the {setting('samples')} can be used as an image, such as "
                    f"{printable(names[0])}"
                )
        batches.append(inputs_of(images, card.form))
        batches.append(inputs_of(images[:1], card.form))
    return batches


def inputs_of(images: NDArray[Any], form: str) -> Batch:
    """Return images as the inputs of a model; each is paired with its mirrored neighbour."""
    if form == "embedding":
        return (images,)
    return images, np.ascontiguousarray(np.roll(images, 1, axis=0)[..., ::-1])


def read_images(
    names: Sequence[str],
    sources: Sources,
    how: Preparation,
    pixels: str,
    screen: Screen,
    most: int | None = None,
) -> tuple[NDArray[Any], list[int]]:
    """Read images as a model takes them.

    Returns
    -------
    (ndarray, list of int)
        [B, 3, H, W], and the place in `names` of each; those that cannot be used are warned of.
    """
    found: list[NDArray[Any]] = []
    places: list[int] = []
    for place, name in enumerate(names):
        if len(found) == most:
            break
        try:
            found.append(as_input(prepared_pixels(sources.read(name), how)[None], pixels))
            places.append(place)
        except ImageError as error:
            screen.warn(f"{printable(name)} is left out: {error}")
        screen.report("decode", place + 1, len(names))
    if not found:
        return np.empty((0, 3, *how.size)), []
    return np.concatenate(found), places


def as_input(images: NDArray[Any], pixels: str) -> NDArray[Any]:
    """Return images [B, H, W, 3], uint8 or float32 in [-1, 1], as a model takes them: [B, 3, H, W].

    Parameters
    ----------
    pixels
        "uint8", or "signed" or "unit" for float32 in [-1, 1] or [0, 1].
    """
    planes = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    if pixels == "uint8":
        return to_uint8(planes).contiguous().numpy()
    signed = planes.float() / 127.5 - 1 if planes.dtype == torch.uint8 else planes
    return (signed if pixels == "signed" else (signed + 1) / 2).contiguous().numpy()


def _sizes(card: ModelCard, backbone: Backbone, settings: Settings) -> Sequence[tuple[int, int]]:
    """Return (height, width) of the images that a model is checked with."""
    fixed = card.fixed_size or parse_size(settings.size)
    if fixed is not None:
        backbone.layout(*fixed)
        return (fixed,)
    return [size for size in _SIZES if _fits(backbone, size)] or [DEFAULT_SIZE]


def _fits(backbone: Backbone, size: tuple[int, int]) -> bool:
    try:
        backbone.layout(*size)
    except UsageError:
        return False
    return True


def _drawn(count: int, how: Preparation) -> NDArray[np.uint8]:
    """Draw smooth colours under some noise, the same ones each time: uint8 [count, H, W, 3]."""
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.integers(0, 256, (count, 8, 8, 3), np.uint8))
    smooth = np.stack([how.scale_pixels(image).numpy() for image in coarse]).astype(np.int16)
    noise = random.integers(-_NOISE, _NOISE + 1, smooth.shape, np.int16)
    return np.asarray((smooth + noise).clip(0, 255), np.uint8)
