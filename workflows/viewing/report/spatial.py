"""Where the images of a few pairs differ, by the recipe of their run.

In: a run and some of its pairs. Out: a map for each, or why there is none. Rows are computed anew:
two forwards a pair, so that no store has to be open.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ....cache.errors import LpipstoreError
from ....pipeline.distances.heads import Head, load_head
from ....pipeline.distances.maps import map_of_rows
from ....pipeline.features.extractor import Extractor, choose_device
from ....pipeline.images.data import prepared_pixels, read_unchanged
from ....pipeline.images.preparation import Preparation
from ....pipeline.images.survey import ImageRecord
from ....pipeline.runs.reopen import reopen_extractor, reopen_recipe
from ....pipeline.runs.run import FinishedRun
from ....pipeline.sources.source import ImageError
from ....pipeline.sources.sources import Sources
from ...session.screen import Screen
from .spread import WithImages

Frame = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class DifferenceMap:
    """Where two images differ.

    Attributes
    ----------
    map
        float32 [height, width]: the distance at each pixel.
    frame
        The part of the picture that was compared and is under the map: left, top, width and height
        as shares of the picture's.
    """

    map: NDArray[np.float32]
    frame: Frame


def difference_maps(
    run: FinishedRun, pairs: WithImages, sources: Sources, screen: Screen
) -> list[DifferenceMap | str]:
    """Compute the maps of some pairs; of one whose images cannot be read, return the reason.

    Raises
    ------
    LpipstoreError
        No map can be made: the weights or the head of the run are gone or are others now.
    """
    recipe = reopen_recipe(run)
    extractor = reopen_extractor(run, recipe.weights_choice, choose_device("auto"))
    channels = extractor.backbone.channels
    head = load_head(recipe.head_choice, recipe.backbone, channels, recipe.lpips_version)
    if head.digest != recipe.head_digest:
        raise LpipstoreError(f"the head of the run ({recipe.head}) is another now")
    maps: list[DifferenceMap | str] = []
    for done, (first, second, _) in enumerate(pairs):
        screen.report("maps", done, len(pairs))
        try:
            maps.append(_map(extractor, head, (first, second), sources))
        except ImageError as error:
            maps.append(error.message)
    screen.report("maps", len(pairs), len(pairs))
    return maps


def _map(
    extractor: Extractor, head: Head, pair: Sequence[ImageRecord], sources: Sources
) -> DifferenceMap:
    pixels = [
        prepared_pixels(
            read_unchanged(sources, image.path, image.content or b""), extractor.preparation
        )
        for image in pair
    ]
    rows = torch.from_numpy(extractor.rows(torch.from_numpy(np.stack(pixels))))
    found = map_of_rows(rows, extractor.layout, extractor.spec.dtype, head, extractor.size)
    return _framed(found.map.numpy(), pair[0], extractor.preparation)


def _framed(
    values: NDArray[np.float32], image: ImageRecord, preparation: Preparation
) -> DifferenceMap:
    """Place a map on the picture that it belongs to: without bars, or within what was cut off."""
    height, width = values.shape
    scales = width / image.width, height / image.height
    if preparation.fit == "crop":
        scale = max(scales)
        share = width / scale / image.width, height / scale / image.height
        return DifferenceMap(values, ((1 - share[0]) / 2, (1 - share[1]) / 2, *share))
    if preparation.fit == "pad":
        scale = min(scales)
        inner = max(1, round(image.height * scale)), max(1, round(image.width * scale))
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        values = values[top : top + inner[0], left : left + inner[1]]
    return DifferenceMap(values, (0.0, 0.0, 1.0, 1.0))
