"""Turn stored rows into vectors whose squared Euclidean distances are LPIPS, or less.

The distance d(x, y) = Σ_k v_k (x_k - y_k)² is the squared Euclidean distance of the rows times √v_k
in each column k, for a head without negative weights. Projected onto orthonormal directions the
vectors are shorter, and no distance is longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.errors import UsageError, setting
from ..backbones.layout import RowLayout
from ..common.budget import too_little
from ..common.by_value import ByValue
from ..common.precision import exact_arithmetic
from ..distances.heads import Head, column_weights
from ..distances.threads import one_thread
from ..features.features import Features
from ..features.pooled import PooledRows
from ..features.pooling import useful_grids
from ..features.rows import STEPS
from ..search.pooled_bounds import Grid, principal_directions

_SEEN = 512  # images that directions are derived from, at least (the search takes as many at most)
_BLOCK = 64  # rows that are projected together
_CENTRE = 16  # images whose mean is the centre


class Embedding(Protocol):
    """Turns stored rows into vectors.

    Attributes
    ----------
    width
        Numbers in a vector.
    grid
        The grid of the pooled rows that it takes (see `lpipstore.pipeline.features.pooling`); None:
        it takes the rows themselves.
    """

    @property
    def width(self) -> int: ...  # noqa: D102

    @property
    def grid(self) -> int | None: ...  # noqa: D102

    def vectors(self, rows: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return the vectors [n, width] of stored rows or pooled rows [n, length]."""
        ...


@dataclass(frozen=True)
class WholeRows(ByValue):
    """The rows themselves, scaled by the head: squared distances are LPIPS, up to rounding.

    The columns are those of a row, also those without weight: taps end to end, each in the order
    channel, height, width. So vectors of other images, and from other programs, are comparable.

    Attributes
    ----------
    roots
        float32 [length]: √v, divided by the steps of the row dtype.
    """

    roots: torch.Tensor
    grid: None = None

    @classmethod
    def of(cls, head: Head, layout: RowLayout, dtype: str) -> "WholeRows":
        """Prepare a head for stored rows of a layout and dtype.

        Raises
        ------
        UsageError
            The head has negative weights.
        """
        need_nonnegative(head)
        roots = np.sqrt(column_weights(head, layout).astype(np.float64)) / STEPS[dtype]
        return cls(torch.from_numpy(roots.astype(np.float32)))

    @property
    def width(self) -> int:
        """Numbers in a vector: those of a row."""
        return len(self.roots)

    def vectors(self, rows: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return the vectors [n, width] of stored rows [n, length]."""
        out = np.empty(rows.shape, np.float32)
        np.multiply(rows, self.roots.numpy(), out=out)
        return out


@dataclass(frozen=True)
class Projection(ByValue):
    """Rows projected onto the directions in which a collection differs most.

    Squared distances are lower bounds of LPIPS, up to the rounding of float32 numbers and of the
    stored means. See `lpipstore.pipeline.search.pooled_bounds`, which searches by such projections.

    Attributes
    ----------
    grid
        See `Embedding`.
    stage
        Turns stored rows of that grid into vectors about the centre of the collection.
    basis
        float64 [numbers of the stage, width]: the directions. Columns are zero where a collection
        does not differ in as many. Products are in float64, where the bits of a float32 vector do
        not depend on which images it is projected with.
    """

    grid: int | None
    stage: Grid
    basis: torch.Tensor

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self.basis.shape[1]

    def vectors(self, rows: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return the vectors [n, width] of stored rows or pooled rows [n, length]."""
        out = np.empty((len(rows), self.width), np.float32)
        for start in range(0, len(rows), _BLOCK):
            points = self.stage.prepare(rows[start : start + _BLOCK])[:, :-1]
            vectors = torch.from_numpy(points).to(torch.float64) @ self.basis
            out[start : start + len(vectors)] = vectors
        return out


def need_nonnegative(head: Head) -> None:
    """Raise `UsageError` if a head has negative weights: no square root, so no vectors."""
    if not head.nonnegative:
        negative = sum(int((weight < 0).sum()) for weight in head.weights)
        raise UsageError(
            f"the head {head.name} has {negative:,} negative weights, and its distances are not "
            f"those of any vectors: choose another with {setting('heads')}"
        )


def grids_to_project(layout: RowLayout) -> tuple[int, ...]:
    """Return the grid whose pooled rows are projected, or nothing if it is the rows themselves.

    The finest grid keeps most of the distances; rows that are hardly longer keep all.
    """
    return useful_grids(layout)[-1:]


def read_vectors(
    embedding: Embedding, pooled: PooledRows, contents: Sequence[bytes]
) -> NDArray[np.float32]:
    """Return the vectors of images by their content hashes, [n, width].

    Raises
    ------
    LpipstoreError
        A row is no longer in the store and its image can no longer be decoded.
    """
    return embedding.vectors(_stored(embedding.grid, pooled, contents))


def fit_projection(
    pooled: PooledRows, contents: Sequence[bytes], head: Head, dims: int, memory: int
) -> Projection:
    """Derive the directions in which a collection differs most from a sample of its images.

    Parameters
    ----------
    pooled
        Pooled rows of the grids from `grids_to_project`.
    contents
        Content hash of each image; their order does not matter.
    dims
        Number of directions.
    memory
        Bytes for the sample and the directions.

    Raises
    ------
    UsageError
        The head has negative weights, `dims` is more than the numbers in a row, or `memory` is too
        small.
    """
    features = pooled.features
    extractor = features.extractor
    layout, dtype = extractor.layout, extractor.spec.dtype
    need_nonnegative(head)
    check_dims(dims, layout.length)
    grid = pooled.grids[-1] if pooled.grids else None
    cells = grid or max(max(height, width) for _, height, width in layout.taps)
    weights = column_weights(head, layout)
    some = torch.from_numpy(_stored(grid, pooled, features.central(contents, _CENTRE)))
    with one_thread(), exact_arithmetic():  # other threads give other bits
        stage = Grid.of(cells, weights, layout, dtype, some)
        point = 4 * (stage.width + 1)
        fitting = (memory - 3 * dims * point) // (3 * point)
        wanted = min(max(_SEEN, 2 * dims), len(set(contents)))
        if fitting < min(dims, wanted):
            least = 3 * point * (dims + min(dims, wanted))
            raise too_little(f"{setting('dims', dims)}", least)
        sample = features.central(contents, min(wanted, fitting))
        seen = torch.empty(len(sample), stage.width)
        for place in range(0, len(sample), _CENTRE):
            rows = _stored(grid, pooled, sample[place : place + _CENTRE])
            seen[place : place + len(rows)] = torch.from_numpy(stage.prepare(rows))[:, :-1]
        found = principal_directions(seen, dims)
    basis = torch.zeros(stage.width, dims, dtype=torch.float64)
    if found is not None:
        basis[:, : found.shape[1]] = found
    return Projection(grid, stage, basis)


def check_dims(dims: int, length: int) -> None:
    """Raise `UsageError` unless rows of so many numbers can be projected to `dims` numbers."""
    if not 1 <= dims <= length:
        raise UsageError(
            f"{setting('dims', dims)} must be from 1 to the {length:,} numbers in a row"
        )


def _stored(grid: int | None, pooled: PooledRows, contents: Sequence[bytes]) -> NDArray[np.generic]:
    features: Features = pooled.features
    return features.rows(contents) if grid is None else pooled.read(grid, contents)
