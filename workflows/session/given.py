"""What a program may give as images, as sources: paths, arrays, tensors, datasets, iterables."""

import os
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from ...cache.errors import UsageError
from ...pipeline.pairlists.table import PairList
from ...pipeline.sources.arrays import ValueRange
from ...pipeline.sources.kinds.hf_dataset import DatasetImages, is_dataset
from ...pipeline.sources.kinds.memory import MemoryImages
from ...pipeline.sources.names import given_name
from ...pipeline.sources.sources import Given

_PAIRS = "pairs"

Images: TypeAlias = Any
"""A path, URL or pattern; a tensor [N, 3, height, width] or an array [N, height, width, 3]; a
Pillow image, a tensor [3, height, width] or an array [height, width, 3]; a Hugging Face dataset; a
source; or an iterable of those."""


def sources_of(
    images: Images,
    value_range: ValueRange | None = None,
    image_column: str | None = None,
    place: str = "images",
) -> list[Given]:
    """Return images as sources, in order; those in memory are called ``python://PLACE/NUMBER``.

    `image_column` is that of a dataset.

    Raises
    ------
    UsageError
        There are none, or something is of a kind that holds no images.
    """
    found: list[Given] = []
    single: list[object] = []
    count = 0

    def flush() -> None:
        nonlocal count
        if single:
            add(MemoryImages(list(single), value_range, place=place, first=count))
            count += len(single)
            single.clear()

    def add(source: Given) -> None:
        found.append(source)

    def take(one: Any, depth: int) -> None:  # noqa: ANN401
        nonlocal count
        if isinstance(one, Image.Image) or (_is_array(one) and (one.ndim != 4 or depth > 1)):
            single.append(one)
            return
        flush()
        if _is_array(one):
            add(MemoryImages(one, value_range, place=place, first=count))
            count += len(one)
        elif isinstance(one, str) or hasattr(one, "__fspath__") or _is_source(one):
            add(one)
        elif is_dataset(one):
            add(DatasetImages(one, image_column, place=f"{place}-{len(found)}" if found else place))
        elif isinstance(one, Iterable) and not isinstance(one, bytes | dict):
            for item in one:
                take(item, depth + 1)
            flush()
        else:
            raise UsageError(
                f"images must be paths, arrays, tensors, Pillow images or a dataset, not a "
                f"{type(one).__name__}"
            )

    take(images, 0)
    flush()
    if not found:
        raise UsageError("an empty list of images came")
    return found


def _is_array(one: object) -> bool:
    return isinstance(one, torch.Tensor | np.ndarray)


def _is_source(one: object) -> bool:
    return all(hasattr(one, name) for name in ("place", "list", "version", "read"))


def pairs_of(
    pairs: Iterable[tuple[Any, Any]], value_range: ValueRange | None = None
) -> tuple[PairList, MemoryImages]:
    """Return pairs of paths or images in memory as a list, and the source of the latter.

    Raises
    ------
    UsageError
        There is no pair, or something is not two images.
    """
    names: dict[str, int] = {}
    held: dict[int, str] = {}
    images: list[object] = []

    def number(image: Any) -> int:  # noqa: ANN401
        if isinstance(image, str) or hasattr(image, "__fspath__"):
            name = os.fspath(image)
        elif _is_array(image) or isinstance(image, Image.Image):
            name = held.setdefault(id(image), given_name(_PAIRS, str(len(images))))
            if len(held) > len(images):
                images.append(image)
        else:
            raise UsageError(
                f"a pair must be of paths, arrays, tensors or Pillow images, not of a "
                f"{type(image).__name__}"
            )
        return names.setdefault(name, len(names))

    numbers = []
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2:
            raise UsageError(f"a pair is two images, and {pair!r} came")
        numbers.append((number(pair[0]), number(pair[1])))
    if not numbers:
        raise UsageError("an empty list of pairs came")
    left, right = np.array(numbers, np.int64).T
    listed = PairList(list(names), left, right, pa.table({}))
    return listed, MemoryImages(images, value_range, place=_PAIRS)
