"""Rows without images: what the stages after extraction are tested with."""

from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lpipstore.cache.keys import PoolSpec
from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.backbones.layout import RowLayout
from lpipstore.pipeline.distances import halves, kernels
from lpipstore.pipeline.distances.heads import Head, column_weights, make_head
from lpipstore.pipeline.features.features import Features

from ..emulated import multiply_halves

LAYOUT = RowLayout(((24, 6, 6), (32, 3, 3)))


@dataclass
class Shelf:
    """Random rows in a store, with the features that read them and a head."""

    features: Features
    contents: list[bytes]
    rows: np.ndarray
    head: Head

    @property
    def weights(self) -> np.ndarray:
        return column_weights(self.head, LAYOUT)

    @property
    def row_bytes(self) -> int:
        return 2 * LAYOUT.length

    @property
    def keys(self) -> list[bytes]:
        return [self.features.key(content) for content in self.contents]

    def exact(self, left, right) -> np.ndarray:
        """Distances in float64, from the definition."""
        x, y = (self.rows[side].astype(np.float64) / 65535 for side in (left, right))
        return np.square(x - y) @ self.weights.astype(np.float64)

    def count_reads(self, monkeypatch) -> dict[bytes, int]:
        """From now on, how often the row of each content was read."""
        reads = dict.fromkeys(self.contents, 0)
        read = self.features.read

        def counting(contents, out):
            for content in contents:
                reads[content] += 1
            read(contents, out)

        monkeypatch.setattr(self.features, "read", counting)
        return reads


@pytest.fixture
def shelve(tmp_path):
    """A function that puts `count` rows into a store; rows 7 and 9 nearly equal rows 2 and 4."""
    stores = []

    def fill(count: int) -> Shelf:
        random = np.random.default_rng(count)
        rows = random.integers(0, 20_000, (count, LAYOUT.length), np.uint16)
        if count > 9:
            rows[[7, 9]] = rows[[2, 4]] + np.uint16(1)
        spec = PoolSpec("shelf", LAYOUT.length, "uint16", {"recipe": "random"})
        extractor = SimpleNamespace(spec=spec, layout=LAYOUT, device=torch.device("cpu"))
        store = FeatureStore(tmp_path / f"shelf{len(stores)}")
        stores.append(store)

        def decode(*_):
            raise AssertionError("all rows are in the store")

        contents = [random.bytes(16) for _ in range(count)]
        features = Features(extractor, store, decode)
        store.put_many(spec, [features.key(content) for content in contents], rows)
        head = make_head([random.random(channels) for channels in LAYOUT.channels], "random")
        return Shelf(features, contents, rows, head)

    yield fill
    for store in stores:
        store.close()


@pytest.fixture(params=["float32", "halves"])
def kernel(request, monkeypatch):
    """The kernel of the CPU, and that of tensor cores, emulated: products of 16 rows a side."""
    if request.param == "halves":
        products = partial(halves.products_of_halves, multiply=multiply_halves)
        emulated = replace(kernels.HALVES, products=products, bytes=kernels.FLOAT32.bytes)
        monkeypatch.setattr(halves, "SIDE", 16)
        monkeypatch.setattr(kernels, "kernel_of", lambda device: emulated)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles and blocks of 16 rows, so that few rows make many of them."""
    for module in ("matrix.plan", "pairlists.plan", "search.search"):
        name = f"lpipstore.pipeline.{module}.block_of"
        monkeypatch.setattr(name, lambda count, row_bytes: 16)
    monkeypatch.setattr("lpipstore.pipeline.matrix.plan._TILE", 16)
