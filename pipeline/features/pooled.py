"""Pooled rows by content hash, stored beside the rows that they are made from."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.keys import PoolSpec
from .features import Features
from .pooling import pool_rows, pooled_layout

_BATCH_BYTES = 64 << 20  # of rows that are read and pooled at a time


class PooledRows:
    """Pooled rows of a collection: read from the store, or made if missing.

    Images that go through the trunk are pooled at once, without reading their rows; rows that were
    in the store already are read once. Each grid has its own pool.

    Parameters
    ----------
    features
        Source of the rows; unless `grids` is empty, its `computed` callback is set to pool them.
    grids
        Grids from `lpipstore.pipeline.features.pooling.GRIDS`, coarse to fine.
    """

    def __init__(self, features: Features, grids: Sequence[int]) -> None:
        self.features = features
        self.grids = tuple(grids)
        self.specs = {grid: self._spec(grid) for grid in self.grids}
        if self.grids:
            features.computed = self._keep

    def _spec(self, grid: int) -> PoolSpec:
        rows, name = self.features.extractor.spec, f"{grid}x{grid}"
        return PoolSpec(
            name=f"{rows.name}-pooled-{name}",
            length=pooled_layout(self.features.extractor.layout, grid).length,
            dtype=rows.dtype,
            recipe={**rows.recipe, "pooled": name},
        )

    def keys(self, contents: Sequence[bytes]) -> list[bytes]:
        """Return the store keys of the pooled rows of images."""
        return [spec.key(content) for spec in self.specs.values() for content in contents]

    def ensure(self, contents: Sequence[bytes]) -> int:
        """Make pooled rows missing from the store; return how many images needed no forward pass.

        Without grids, the rows themselves are ensured. Images that cannot be decoded end up in
        `failures` of the features.
        """
        unique = list(dict.fromkeys(contents))
        lacking = self._lacking(unique)
        hits = len(unique) - len(lacking)
        if self.grids and self._fetch(lacking):
            lacking = self._lacking(lacking)
        hits += self.features.ensure(lacking)
        still = [c for c in self._lacking(lacking) if c not in self.features.failures]
        if self.grids and self.features.full is None:
            for part in self._parts(still):
                self._keep(part, self.features.rows(part))
        return hits

    def read(self, grid: int, contents: Sequence[bytes]) -> NDArray[np.generic]:
        """Return the pooled rows of images as stored, [n, length].

        Raises
        ------
        LpipstoreError
            A row is no longer in the store and its image can no longer be decoded.
        """
        spec = self.specs[grid]
        out = np.empty((len(contents), spec.length), spec.dtype)
        with self.features.clock("read"):
            found = self.features.store.get_many([spec.key(c) for c in contents], out)
        lost = [contents[place] for place in np.flatnonzero(~found).tolist()]
        if lost:
            parts = [self._pool(self.features.rows(part), (grid,))[0] for part in self._parts(lost)]
            out[~found] = np.concatenate(parts)
        return out

    def _lacking(self, contents: Sequence[bytes]) -> list[bytes]:
        """Return contents with a pooled row missing from the store; all contents without grids."""
        if not self.grids:
            return list(contents)
        with self.features.clock("read"):
            missing = set(self.features.store.missing(self.keys(contents)))
        specs = self.specs.values()
        return [c for c in contents if any(spec.key(c) in missing for spec in specs)]

    def _fetch(self, contents: Sequence[bytes]) -> int:
        """Fetch pooled rows from the remote folder, which are shorter; return how many came."""
        count = 0
        for spec in self.specs.values():
            by_key = {spec.key(content): content for content in contents}
            wanted = [by_key[key] for key in self.features.store.missing(list(by_key))]
            for batch, _ in self.features.fetch(spec, wanted):
                count += len(batch)
                if self.features.full is not None:
                    return count
        return count

    def _parts(self, contents: Sequence[bytes]) -> list[Sequence[bytes]]:
        size = max(1, _BATCH_BYTES // self.features.extractor.spec.row_bytes)
        return [contents[start : start + size] for start in range(0, len(contents), size)]

    def _keep(self, contents: Sequence[bytes], rows: NDArray[np.generic]) -> None:
        for spec, pooled in zip(self.specs.values(), self._pool(rows, self.grids), strict=True):
            self.features.keep(spec, contents, pooled)

    def _pool(self, rows: NDArray[np.generic], grids: tuple[int, ...]) -> list[NDArray[np.generic]]:
        extractor = self.features.extractor
        with self.features.clock("pool"):
            pooled = pool_rows(
                torch.from_numpy(rows), extractor.layout, extractor.spec.dtype, grids
            )
            return [part.numpy() for part in pooled]
