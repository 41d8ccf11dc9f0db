"""A map of a collection: classical scaling, which puts images in a plane as far apart as they are.

LPIPS is a squared Euclidean distance, of rows scaled by the roots of the head's weights. Classical
scaling (Torgerson 1952) starts from squared distances, so it takes LPIPS as it is, without
squaring: distances in the map approximate the square roots of LPIPS. Without negative weights the
scalar products have no negative eigenvalue, and the map is the projection of the rows on their
principal components.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, eigsh

from .hierarchy import need_finite

_DENSE = 400  # images for which all eigenvalues are computed, in milliseconds
_KRYLOV = 40  # vectors that ARPACK keeps


def classical_scaling(
    matrix: NDArray[np.floating], dimensions: int = 2
) -> tuple[NDArray[np.float64], float]:
    """Place images in a plane by their distances.

    Parameters
    ----------
    matrix
        Symmetric LPIPS distances [n, n]: squared Euclidean distances. It is never copied for more
        than a few hundred images, nor changed.
    dimensions
        Of the plane.

    Returns
    -------
    points : ndarray of shape (n, dimensions), float64
        Centred on 0, most spread in the first dimension; squared distances of points approximate
        `matrix`. In each dimension the coordinate of largest size is positive, so that the same
        matrix gives the same map. Dimensions that the distances do not span are 0.
    share : float
        Share of the spread (the positive eigenvalues) that the map shows, in [0, 1]; 1 where all
        images are identical. For many images and a head of negative weights, whose negative
        eigenvalues are not computed, it comes out somewhat too high.

    Raises
    ------
    LpipstoreError
        Distances are missing or not finite.
    """
    count = len(matrix)
    points = np.zeros((count, dimensions))
    if count < 2:
        return points, 1.0
    means = matrix.mean(1, dtype=np.float64)
    need_finite(means)
    # The trace of -J D J / 2, where the diagonal of D is 0: the sum of all eigenvalues
    total = float(means.sum()) / 2
    if not matrix.any():
        return points, 1.0
    if count <= max(_DENSE, 2 * dimensions):
        values, vectors = _all_eigenpairs(matrix, means)
        total = float(values[values > 0].sum())
    else:
        values, vectors = _largest_eigenpairs(matrix, dimensions)
    kept = np.argsort(-values, kind="stable")[:dimensions]
    values, vectors = np.maximum(values[kept], 0), vectors[:, kept]
    tops = np.argmax(np.abs(vectors), axis=0)
    signs = np.where(vectors[tops, np.arange(len(kept))] < 0, -1.0, 1.0)
    points[:, : len(kept)] = vectors * signs * np.sqrt(values)
    return points, min(1.0, float(values.sum()) / total) if total > 0 else 0.0


def _all_eigenpairs(
    matrix: NDArray[np.floating], means: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    products = (means[:, None] + means[None, :] - means.mean() - matrix) / 2
    values, vectors = eigh(products)
    return values, vectors


def _largest_eigenpairs(
    matrix: NDArray[np.floating], dimensions: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the largest eigenvalues by products with vectors, in the precision of the matrix."""
    count = len(matrix)

    def times(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        centred = vector.ravel() - vector.mean()
        product = (matrix @ centred.astype(matrix.dtype)).astype(np.float64)
        centred_product: NDArray[np.float64] = (product - product.mean()) / -2
        return centred_product

    operator = LinearOperator((count, count), matvec=times, dtype=np.float64)
    start = np.random.default_rng(0).normal(size=count)  # ARPACK's own would differ each time
    krylov = min(count - 1, max(_KRYLOV, 2 * dimensions + 1))
    values, vectors = eigsh(
        operator, dimensions, which="LA", v0=start - start.mean(), ncv=krylov, tol=1e-6
    )
    return values, vectors
