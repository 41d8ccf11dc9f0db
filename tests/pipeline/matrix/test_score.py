"""Scoring by a plan: whatever the plan, the same bytes."""

import numpy as np
import pytest
import torch

from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.distances.heads import column_weights, load_head
from lpipstore.pipeline.features.extractor import Extractor
from lpipstore.pipeline.features.features import Features
from lpipstore.pipeline.images.loader import decode_arrays
from lpipstore.pipeline.matrix.plan import MatrixPlan, plan_matrix
from lpipstore.pipeline.matrix.score import fast_error, score_matrix

COUNT = 75


class Tiles:
    """Keeps tiles in memory, and refuses to get one twice."""

    def __init__(self, shape, tile, symmetric):
        self.array = np.full(shape, np.nan, np.float32)
        self.tile, self.symmetric = tile, symmetric
        self.there = set()

    def done(self, row, column):
        return (row, column) in self.there

    def write(self, row, column, distances):
        assert (row, column) not in self.there
        self.there.add((row, column))
        top, left = row * self.tile, column * self.tile
        self.array[top : top + len(distances), left : left + distances.shape[1]] = distances
        if self.symmetric:
            self.array[left : left + distances.shape[1], top : top + len(distances)] = distances.T


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Features of drawn images (two of them equal, some nearly so), and their column weights."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (COUNT, 32, 32, 3), np.uint8)
    images[70] = images[3]
    images[71:] = images[4:8] ^ 1
    contents = [b"%016d" % n for n in range(COUNT)]
    pixels = {
        content: torch.from_numpy(image) for content, image in zip(contents, images, strict=True)
    }
    backbone = load_backbone("squeeze", weights="random")
    with FeatureStore(tmp_path_factory.mktemp("store") / "s") as store:
        features = Features(
            Extractor(backbone, (32, 32)),
            store,
            lambda which, batch: decode_arrays(pixels, which, batch),
        )
        features.ensure(contents)
        head = load_head(None, "squeeze", backbone.channels)
        yield features, contents, column_weights(head, features.extractor.layout)


def run(scored, plan, across=None, **options):
    features, contents, weights = scored
    down = contents[: plan.rows]
    columns = len(across or down)
    tiles = Tiles((plan.rows, columns), plan.tile, across is None)
    score_matrix(features, down, across, weights, plan, tiles, **options)
    assert not np.isnan(tiles.array).any()
    return tiles.array


@pytest.mark.parametrize("slab", [16, 32, 48, COUNT])
@pytest.mark.parametrize("piece", [16, 32])
@pytest.mark.parametrize("ahead", [False, True])
def test_slabs_and_pieces_change_no_bit(scored, slab, piece, ahead):
    whole = run(scored, MatrixPlan(COUNT, None, 16, 16, COUNT, 80, False))
    assert np.array_equal(whole, whole.T)
    assert whole[3, 70] == 0
    assert (np.diag(whole, 67)[4:8] > 0).all()
    parts = run(scored, MatrixPlan(COUNT, None, 16, 16, slab, piece, ahead))
    assert parts.tobytes() == whole.tobytes()


@pytest.mark.parametrize("slab", [16, 32])
def test_a_matrix_between_two_collections(scored, slab):
    contents = scored[1]
    symmetric = run(scored, plan_matrix(COUNT, 1, 10**9))
    parts = run(scored, MatrixPlan(30, 45, 16, 16, slab, 16, True), contents[30:])
    whole = run(scored, MatrixPlan(30, 45, 16, 16, 45, 48, False), contents[30:])
    assert parts.tobytes() == whole.tobytes()
    assert np.abs(whole - symmetric[:30, 30:]).max() < 1e-6


def test_tiles_that_are_there_are_left_alone(scored):
    features, contents, weights = scored
    plan = MatrixPlan(COUNT, None, 16, 16, 32, 32, True)
    tiles = Tiles((COUNT, COUNT), 16, True)
    there = {(0, 0), (1, 3), (4, 4)}
    tiles.there |= there
    written = score_matrix(features, contents, None, weights, plan, tiles)
    assert written == len(plan.tiles()) - len(there)
    assert np.isnan(tiles.array[:16, :16]).all()
    assert np.isnan(tiles.array).sum() == 16 * 16 + 2 * 16 * 16 + 11 * 11


def test_what_cannot_be_written_is_raised(scored):
    class Broken(Tiles):
        def write(self, row, column, distances):
            raise OSError("no space")

    features, contents, weights = scored
    plan = MatrixPlan(COUNT, None, 16, 16, 32, 32, True)
    with pytest.raises(OSError, match="no space"):
        score_matrix(features, contents, None, weights, plan, Broken((75, 75), 16, True))


def test_fast_stays_within_the_error_that_it_tells(scored):
    features, contents, weights = scored
    plan = plan_matrix(COUNT, 1, 10**9)
    exact, fast = run(scored, plan), run(scored, plan, fast=True)
    error = fast_error(features, contents, weights)
    assert np.abs(fast - exact).max() <= error + 1e-7
    assert error < 1e-3
    assert fast[3, 70] == 0
    assert torch.get_float32_matmul_precision() == "highest"
