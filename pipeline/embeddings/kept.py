"""How much of the distances a projection keeps."""

from collections.abc import Sequence

import numpy as np
import torch

from ..distances.direct import direct_distances
from ..distances.heads import Head, column_weights
from ..distances.panels import Columns
from ..features.pooled import PooledRows
from .vectors import Embedding, read_vectors

_IMAGES = 64  # all pairs of them are looked at: 2,016


def share_kept(
    embedding: Embedding, pooled: PooledRows, contents: Sequence[bytes], head: Head, memory: int
) -> float:
    """Return the mean squared distance of the vectors of sample pairs, relative to that of LPIPS.

    Parameters
    ----------
    contents
        Content hash of each image. The sample are those that directions are derived from last (see
        `fit_projection`): not at all in a collection that is large enough.
    memory
        Bytes for rows.

    Returns
    -------
    float
        From 0 to 1; 1 where the images of the sample are all equal.
    """
    extractor = pooled.features.extractor
    most = max(2, min(_IMAGES, memory // (2 * extractor.spec.row_bytes)))
    sample = pooled.features.central(contents, len(contents))[-most:]
    pairs = torch.from_numpy(np.stack(np.triu_indices(len(sample), 1), 1))
    weights = column_weights(head, extractor.layout)
    columns = Columns.of(weights, extractor.spec.dtype, torch.device("cpu"))
    rows = torch.from_numpy(pooled.features.rows(sample))
    true = float(direct_distances(rows, rows, pairs, columns).sum())
    vectors = read_vectors(embedding, pooled, sample).astype(np.float64)
    kept = sum(float(np.square(vectors[i] - vectors[i + 1 :]).sum()) for i in range(len(vectors)))
    return kept / true if true else 1.0
