"""The bound vectors of a collection at each bound stage: made from pooled rows, and cached."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..common.budget import Budget
from ..common.device import rows_at_once
from ..features.features import Features
from ..features.pooled import PooledRows
from ..features.rowcache import Read, RowCache
from .blocks import BLOCK
from .bounds import BoundStage
from .pooled_bounds import Grid, images_to_see, project

Stages = list[tuple[BoundStage, RowCache]]
"""Bound stages with the bound vectors of all images, coarse to fine."""


def grids_of(
    pooled: PooledRows,
    contents: Sequence[bytes],
    weights: NDArray[np.float32],
    memory: int,
    room: int,
) -> Stages:
    """Return the bound stages made from pooled rows, one per grid.

    Parameters
    ----------
    contents
        Content hash of each image.
    weights
        Column weights of a head, none of them negative, float32 [length].
    memory
        Bytes of this machine for the bound vectors of all of these stages.
    room
        Bytes of the device for them, the same on a CPU.
    """
    vector_bytes = max(1, sum(4 * pool.length for pool in pooled.specs.values()))
    held = Budget(room, vector_bytes).rows()
    at_once = rows_at_once(Budget(memory, vector_bytes).rows(), vector_bytes)
    extractor, stages = pooled.features.extractor, Stages()
    for grid in pooled.grids:
        some = torch.from_numpy(pooled.read(grid, pooled.features.central(contents)))
        stage = Grid.of(grid, weights, extractor.layout, extractor.spec.dtype, some)
        read = _BoundRows(pooled, grid, stage, contents)
        stages.append((stage, _held(read, len(contents), held, extractor.device, at_once)))
    return stages


def directions_of(features: Features, contents: Sequence[bytes], grids: Stages) -> Stages:
    """Return the stage of projections that precedes the first grid; none if it does not pay off."""
    if not grids or not images_to_see(len(contents)):
        return []
    grid, points = grids[0]
    seen = points.take(central_numbers(features, contents, images_to_see(len(contents)))).cpu()
    blocks = (points.block(number).cpu() for number in range(-(-len(contents) // BLOCK)))
    made = project(grid, seen, blocks)
    if made is None:
        return []
    stage, projected = made
    read = projected.__getitem__
    return [(stage, _held(read, len(contents), len(contents), features.extractor.device))]


def central_numbers(features: Features, contents: Sequence[bytes], count: int) -> NDArray[np.int64]:
    """Return the sorted numbers of representative images (see `Features.central`)."""
    places = {content: place for place, content in enumerate(contents)}
    return np.sort([places[content] for content in features.central(contents, count)])


@dataclass(frozen=True)
class _BoundRows:
    """Reads the bound vectors of images by their numbers."""

    pooled: PooledRows
    grid: int
    stage: Grid
    contents: Sequence[bytes]

    def __call__(self, which: NDArray[np.int64]) -> NDArray[np.generic]:
        rows = self.pooled.read(self.grid, [self.contents[number] for number in which])
        return self.stage.prepare(rows)


def _held(
    read: Read, count: int, room: int, device: torch.device, at_once: int | None = None
) -> RowCache:
    return RowCache(read, count, BLOCK, room, device, whole=True, at_once=at_once)
