"""Plan how a list of pairs is scored: which pairs by matrix products, which one by one.

The rows that a list needs are reordered and cut into blocks; two blocks make a candidate block (a
`cell`). A candidate block in which many pairs are wanted is scored by one matrix product; the pairs
of the others are computed one by one. The plan depends only on the pairs and the length of a row,
so neither the order of the list nor the memory changes a bit of a distance. What depends on memory
is in `lpipstore.pipeline.pairlists.schedule`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..distances.distances import block_of

SAME, UNUSABLE = -1, -2
"""Values of `ListPlan.place` for pairs of equal images (distance 0) and for unusable pairs."""

_DENSE_SHARE = 64
"""A product pays off when one pair in so many is wanted: measured with AlexNet and SqueezeNet."""


@dataclass(frozen=True)
class ListPlan:
    """The rows and pairs of a list in the order in which they are scored.

    Attributes
    ----------
    rows
        int64 [rows]: index of the image that each row belongs to.
    block
        Rows per block; the last block may have fewer.
    pairs
        int64 [distinct pairs, 2]: row numbers of each pair, smaller first, sorted by candidate
        block.
    place
        int64 [pairs of the list]: index of each pair in `pairs`, or `SAME`, or `UNUSABLE`.
    cells
        int64 [candidate blocks, 2]: the two blocks of each candidate block, smaller first.
    cell_of
        int64 [distinct pairs]: the candidate block of each pair, as an index into `cells`.
    dense
        bool [candidate blocks]: whether it is scored by a matrix product.
    """

    rows: NDArray[np.int64]
    block: int
    pairs: NDArray[np.int64]
    place: NDArray[np.int64]
    cells: NDArray[np.int64]
    cell_of: NDArray[np.int64]
    dense: NDArray[np.bool_]

    def in_list_order(self, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the distances of `pairs` in list order: 0 for equal images, NaN if unusable."""
        listed = np.where(self.place == UNUSABLE, np.float32(np.nan), np.float32(0))
        known = self.place >= 0
        listed[known] = numbers[self.place[known]]
        return listed


def plan_list(
    left: NDArray[np.int64], right: NDArray[np.int64], keys: Sequence[bytes], row_bytes: int
) -> ListPlan:
    """Plan a list of pairs.

    Parameters
    ----------
    left, right
        int64 [pairs]: image numbers of each pair, -1 for an unusable image.
    keys
        Unique key of each image; equal images share one number.
    row_bytes
        Bytes of a stored row.
    """
    rank = np.empty(len(keys), np.int64)
    by_key = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    rank[by_key] = np.arange(len(keys))
    place = np.where(left == right, SAME, 0)
    place[(left < 0) | (right < 0)] = UNUSABLE
    wanted = np.flatnonzero(place == 0)
    ends = np.sort(np.stack([rank[left[wanted]], rank[right[wanted]]], axis=1), axis=1)
    codes, inverse = np.unique(ends[:, 0] * len(keys) + ends[:, 1], return_inverse=True)
    edges = np.stack([codes // len(keys), codes % len(keys)], axis=1) if len(codes) else ends[:0]
    order = _neighbours_together(edges)
    position = np.full(len(keys), -1, np.int64)
    position[order] = np.arange(len(order))
    block = block_of(max(len(order), 1), row_bytes)
    pairs = np.sort(position[edges], axis=1)
    blocks = pairs // block
    along = -(-len(order) // block) or 1
    cell_codes = blocks[:, 0] * along + blocks[:, 1]
    sequence = np.lexsort((pairs[:, 1], pairs[:, 0], cell_codes))
    back = np.empty(len(sequence), np.int64)
    back[sequence] = np.arange(len(sequence))
    place[wanted] = back[inverse]
    cells, cell_of, counts = np.unique(
        cell_codes[sequence], return_inverse=True, return_counts=True
    )
    return ListPlan(
        rows=by_key[order],
        block=block,
        pairs=pairs[sequence],
        place=place,
        cells=np.stack([cells // along, cells % along], axis=1),
        cell_of=cell_of,
        dense=counts * _DENSE_SHARE >= block**2,
    )


def _neighbours_together(edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order the ends of edges so that connected ones are close: candidate blocks are then fuller.

    Connected components follow one another by their smallest member, each in breadth-first order
    from that member. Edges must be distinct; their order makes no difference.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    nodes, ends = np.unique(edges, return_inverse=True)
    ends = ends.reshape(-1, 2)
    count = len(nodes)
    if not count:
        return nodes
    graph = coo_array((np.ones(len(ends)), ends.T), shape=(count, count))
    _, group = connected_components(graph, directed=False)
    _, starts = np.unique(group, return_index=True)  # the smallest member of each group
    # One search for all groups: it starts at an extra node linked to one member of each
    links = np.stack([np.full(len(starts), count), starts], axis=1)
    ends = np.concatenate([ends, links])
    joined = coo_array((np.ones(len(ends)), ends.T), shape=(count + 1, count + 1)).tocsr()
    joined.sort_indices()
    visited = breadth_first_order(joined, count, directed=False, return_predecessors=False)[1:]
    when = np.empty(count, np.int64)
    when[visited] = np.arange(count)
    return np.asarray(nodes[np.lexsort((when, starts[group]))])
