"""The order of a tree's leaves in which neighbours are alike: optimal, or turned end to end.

SciPy's `optimal_leaf_ordering` is not used: it computes the shortest length and returns an order
that does not have it (scipy issue 11227; of random trees of six leaves 40 % come out too long).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import squareform

_IN_CACHE = 1 << 15  # numbers of a block of a min-plus product


def optimal_order(condensed: NDArray[np.floating], tree: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the order of a tree's leaves with the smallest sum of the distances of neighbours.

    Dynamic programming over the merges from below (Bar-Joseph et al. 2001): the shortest order of a
    cluster that begins with leaf a of one branch and ends with leaf b of the other has its seam
    where ``best[a, m] + distance[m, k] + best[k, b]`` is smallest. Each minimum is taken on its
    own, so that time grows with the cube of the number of leaves at most.

    Parameters
    ----------
    condensed
        Distances of all pairs in condensed form; of any sign.
    tree
        The result of `lpipstore.pipeline.analysis.hierarchy.cluster_tree`, of two leaves or more.
    """
    branches = _Branches(tree)
    at = branches.order()
    distances = squareform(np.asarray(condensed, np.float64))[np.ix_(at, at)]
    best = np.zeros_like(distances)
    for node in range(len(at), len(at) + len(tree)):
        left, right = branches.children(node)
        found = _lengths(best, distances, branches, left, right)
        first, second = branches.span(left), branches.span(right)
        best[first, second] = found
        best[second, first] = found.T
    return at[_trace(best, distances, branches)]


class _Branches:
    """Where the leaves of each node stand in the order of the tree itself: a range of places."""

    def __init__(self, tree: NDArray[np.float64]) -> None:
        self.leaves = len(tree) + 1
        self._children: list[tuple[int, int]] = [
            (int(left), int(right)) for left, right in tree[:, :2]
        ]
        sizes: list[int] = [1] * self.leaves + tree[:, 3].astype(int).tolist()
        self._starts: list[int] = [0] * len(sizes)
        for node in range(len(sizes) - 1, self.leaves - 1, -1):
            left, right = self.children(node)
            self._starts[left] = self._starts[node]
            self._starts[right] = self._starts[node] + sizes[left]
        self._sizes = sizes

    def order(self) -> NDArray[np.int64]:
        """Return the leaves in the order of the tree."""
        return np.argsort(self._starts[: self.leaves])

    def children(self, node: int) -> tuple[int, int]:
        return self._children[node - self.leaves]

    def span(self, node: int) -> slice:
        return slice(self._starts[node], self._starts[node] + self._sizes[node])

    def is_leaf(self, node: int) -> bool:
        return node < self.leaves

    def holds(self, node: int, place: int) -> bool:
        return 0 <= place - self._starts[node] < self._sizes[node]

    def opposite(self, node: int, place: int) -> slice:
        """Return the places where an order of a node can end that begins at a place."""
        if self.is_leaf(node):
            return self.span(node)
        left, right = self.children(node)
        return self.span(right if self.holds(left, place) else left)


def _lengths(
    best: NDArray[np.float64],
    distances: NDArray[np.float64],
    branches: _Branches,
    left: int,
    right: int,
) -> NDArray[np.float64]:
    """Return the shortest length from each leaf of one branch to each of the other."""
    first, second = branches.span(left), branches.span(right)
    through = distances[first, second]  # from a over the end of its branch to k
    if not branches.is_leaf(left):
        one, two = map(branches.span, branches.children(left))
        ways = [(one, two), (two, one)]
        parts = [_min_plus(best[a, m], distances[m, second]) for a, m in ways]
        through = np.concatenate(parts)
    if branches.is_leaf(right):
        return through
    one, two = map(branches.span, branches.children(right))
    middle = one.stop - one.start
    parts = [
        _min_plus(through[:, middle:], best[two, one]),
        _min_plus(through[:, :middle], best[one, two]),
    ]
    return np.concatenate(parts, axis=1)


def _min_plus(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``min over k of left[i, k] + right[k, j]``."""
    height, width = len(left), right.shape[1]
    if height < left.shape[1]:  # fewer, longer steps
        return np.stack([(row[:, None] + right).min(0) for row in left])
    out = np.full((height, width), np.inf)
    rows = max(1, _IN_CACHE // width)
    room = np.empty((min(rows, height), width))
    for top in range(0, height, rows):
        block = out[top : top + rows]
        sums = room[: len(block)]
        for column, line in zip(left[top : top + rows].T, right, strict=True):
            np.add(column[:, None], line, out=sums)
            np.minimum(block, sums, out=block)
    return out


def _trace(
    best: NDArray[np.float64], distances: NDArray[np.float64], branches: _Branches
) -> NDArray[np.int64]:
    """Return the places of the leaves in an order of the shortest length; of equals the first."""
    root = 2 * branches.leaves - 2
    left, right = map(branches.span, branches.children(root))
    a, b = np.unravel_index(np.argmin(best[left, right]), best[left, right].shape)
    order: list[int] = []
    todo = [(root, left.start + int(a), right.start + int(b))]
    while todo:
        node, begin, end = todo.pop()
        if branches.is_leaf(node):
            order.append(begin)
            continue
        near, far = branches.children(node)
        if not branches.holds(near, begin):
            near, far = far, near
        out, into = branches.opposite(near, begin), branches.opposite(far, end)
        lengths = best[begin, out][:, None] + distances[out, into] + best[into, end]
        m, k = np.unravel_index(np.argmin(lengths), lengths.shape)
        todo.append((far, into.start + int(k), end))
        todo.append((near, begin, out.start + int(m)))
    return np.array(order, np.int64)


def turned_order(condensed: NDArray[np.floating], tree: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return an order in which at each merge the closest ends of both branches meet.

    One pass over the merges (Gruvaeus and Wainer 1972): milliseconds for thousands of leaves, and
    only lists of them in memory. The parameters are those of `optimal_order`.
    """
    count = len(tree) + 1
    branches: list[list[int]] = [[leaf] for leaf in range(count)]

    def apart(i: int, j: int) -> float:
        return float(condensed[place(min(i, j), max(i, j), count)])

    for left, right in tree[:, :2].astype(np.int64).tolist():
        first, second = branches[left], branches[right]
        branches[left] = branches[right] = []
        ends = [(apart(i, j), i, j) for i in (first[-1], first[0]) for j in (second[0], second[-1])]
        _, i, j = min(ends, key=lambda end: end[0])  # of equals the one that turns the least
        if i != first[-1]:
            first.reverse()
        if j != second[0]:
            second.reverse()
        first.extend(second)
        branches.append(first)
    return np.array(branches[-1], np.int64)


def place(i: int, j: int, count: int) -> int:
    """Return where the pair (i, j), i < j, of `count` images stands in the condensed form."""
    return count * i - i * (i + 1) // 2 + j - i - 1
