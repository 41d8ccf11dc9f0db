"""All pairs of a collection as a matrix in memory."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError
from ...pipeline.common.text import printable
from ...pipeline.distances.heads import column_weights
from ...pipeline.images.survey import ImageRecord
from ...pipeline.matrix.plan import plan_matrix
from ...pipeline.matrix.score import score_matrix
from ...pipeline.sources.sources import Given
from ..session.screen import Screen
from ..session.session import find_collection, make_collection, open_session
from ..session.settings import Settings, parse_bytes


class MatrixInMemory:
    """A matrix in memory with the interface of `lpipstore.pipeline.runs.zarr_array.MatrixFile`."""

    def __init__(self, count: int, tile: int) -> None:
        self.array = np.full((count, count), np.nan, np.float32)
        self.tile = tile

    def done(self, row: int, column: int) -> bool:
        """Return False: a matrix in memory starts empty."""
        return False

    def write(self, row: int, column: int, distances: NDArray[np.float32]) -> None:
        """Store one tile and its transpose."""
        top, left = row * self.tile, column * self.tile
        height, width = distances.shape
        self.array[top : top + height, left : left + width] = distances
        self.array[left : left + width, top : top + height] = distances.T


def score_in_memory(
    sources: Sequence[Given], settings: Settings, screen: Screen
) -> NDArray[np.float32]:
    """Score all pairs of the images in `sources`, every one of which has to be usable.

    Raises
    ------
    LpipstoreError
        There are no images, or an image cannot be read.
    """
    with open_session(settings, screen) as session:
        records = find_collection(sources, session)
        _need_all(records)
        collection = make_collection(records, session)
        head, memory = collection.head(settings), parse_bytes(settings.memory)
        plan = plan_matrix(len(collection.good), collection.row_bytes(), memory)
        with collection.pinned("distance_matrix"):
            collection.extract()
            _need_all(collection.records)
            contents, features = collection.contents(), collection.features
            matrix = MatrixInMemory(len(contents), plan.tile)
            weights = column_weights(head, features.extractor.layout)
            score_matrix(features, contents, None, weights, plan, matrix, screen.report)
    return matrix.array


def _need_all(records: Sequence[ImageRecord]) -> None:
    for record in records:
        if record.error:
            raise LpipstoreError(f"{printable(record.path)}: {record.error}")
