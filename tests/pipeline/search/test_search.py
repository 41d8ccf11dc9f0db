"""Searches for close pairs: the answers of the dense matrix, whatever the collection."""

import numpy as np
import pytest
import torch

from lpipstore.cache.errors import UsageError
from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.common.progress import silent
from lpipstore.pipeline.distances.heads import column_weights, make_head
from lpipstore.pipeline.features.extractor import Extractor
from lpipstore.pipeline.features.features import Features
from lpipstore.pipeline.features.pooled import PooledRows
from lpipstore.pipeline.images.loader import decode_arrays
from lpipstore.pipeline.matrix.plan import plan_matrix
from lpipstore.pipeline.matrix.score import score_matrix
from lpipstore.pipeline.search import blocks as cells
from lpipstore.pipeline.search.candidates import CandidateTiles
from lpipstore.pipeline.search.cascade import Tally
from lpipstore.pipeline.search.room import rows_that_fit
from lpipstore.pipeline.search.search import Search
from lpipstore.pipeline.search.topk import Neighbours
from lpipstore.workflows.scoring.in_memory import MatrixInMemory

MEMORY = 1_000_000_000
COUNT = 300  # more than one block


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("squeeze", weights="random")


def pictures(count, seed=0, duplicates=0.3):
    """Random pictures of 32×32: some equal, some with noise of ±1 or more."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 4, 4, 3))
    pixels = np.kron(coarse, np.ones((1, 8, 8, 1)))
    for number in np.flatnonzero(random.random(count) < duplicates)[1:]:
        strength = random.choice([0, 1, 3, 10, 30])
        other = pixels[random.integers(0, number)] if number else pixels[0]
        pixels[number] = other + random.integers(-strength, strength + 1, other.shape)
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))


class Collection:
    """Pictures with a store, and what the dense matrix says of them."""

    def __init__(self, folder, backbone, pixels, row_dtype="uint16"):
        self.contents = [bytes(image.numpy().tobytes()) for image in pixels]
        by_content = dict(zip(self.contents, pixels, strict=True))
        self.store = FeatureStore(folder)
        self.features = Features(
            Extractor(backbone, (32, 32), row_dtype=row_dtype),
            self.store,
            lambda contents, batch: decode_arrays(by_content, contents, batch),
        )
        self.layout = self.features.extractor.layout

    def weights(self, seed=0, negative=False):
        random = np.random.default_rng(seed)
        parts = [random.random(c) / 30 for c in self.layout.channels]
        if negative:
            parts = [part * np.where(random.random(len(part)) < 0.2, -1, 1) for part in parts]
        return column_weights(make_head(parts, "random"), self.layout)

    def matrix(self, weights):
        plan = plan_matrix(len(self.contents), 2 * self.layout.length, MEMORY)
        matrix = MatrixInMemory(len(self.contents), plan.tile)
        score_matrix(self.features, self.contents, None, weights, plan, matrix)
        return matrix.array

    def search(self, weights, memory=MEMORY, grids=(2,)):
        pooled = PooledRows(self.features, grids)
        pooled.ensure(self.contents)
        return Search(self.features, pooled, self.contents, weights, memory)

    def below(self, weights, below, **options):
        """Return i, j, distance and the tally of a whole search."""
        search = self.search(weights, **options)
        parts = [search.below(part, below) for part in range(search.parts)]
        close = [
            np.concatenate(column) for column in zip(*(part[0] for part in parts), strict=True)
        ]
        return *close, [part[1] for part in parts]


@pytest.fixture(scope="module")
def collection(tmp_path_factory, backbone):
    found = Collection(tmp_path_factory.mktemp("store"), backbone, pictures(COUNT))
    yield found
    found.store.close()


def expected(matrix, below):
    close = np.triu(matrix.astype(np.float64) < below, 1)
    return np.argwhere(close).T


def check(collection, weights, below, **options):
    matrix = collection.matrix(weights)
    i, j, distance, tallies = collection.below(weights, below, **options)
    assert np.array_equal(np.stack([i, j]), expected(matrix, below))
    assert np.abs(distance - matrix[i, j]).max(initial=0) <= 1e-7
    assert (distance.astype(np.float64) < below).all()
    small = matrix[i, j] < 0.0099
    assert np.array_equal(distance[small], matrix[i, j][small])
    return len(i), tallies


@pytest.mark.parametrize("below", [0.0, 1e-9, 1e-4, 0.005, 0.01, 0.0225])
def test_the_pairs_are_those_of_the_matrix(collection, below):
    check(collection, collection.weights(), below)


def test_a_distance_in_the_matrix_is_not_below_itself(collection):
    """At, just above and just below distances that occur, the matrix's own rounding decides."""
    weights = collection.weights()
    matrix = collection.matrix(weights)
    upper = np.sort(matrix[np.triu_indices(COUNT, 1)].astype(np.float64))
    close = upper[(upper > 0.01) & (upper < 0.0225)]
    for threshold in (close[0], close[len(close) // 2]):
        float32 = np.float32(threshold)
        for below in (threshold, np.nextafter(float32, np.float32(1)), np.nextafter(threshold, 0)):
            check(collection, weights, float(below))


@pytest.mark.parametrize("row_dtype", ["uint16", "float32"])
@pytest.mark.parametrize("seed", range(3))
def test_random_collections(tmp_path, backbone, row_dtype, seed):
    count = [7, 40, 90][seed]
    found = Collection(tmp_path, backbone, pictures(count, seed + 1, 0.6), row_dtype)
    for below in (0.002, 0.025, 1e6):
        check(found, found.weights(seed), below)
    found.store.close()


def test_bounds_rule_most_pairs_out(collection):
    listed, tallies = check(collection, collection.weights(), 1e-3)
    assert listed <= sum(tally.left["2x2"] for tally in tallies) < COUNT * (COUNT - 1) / 2 / 100


def test_directions_come_before_the_grids_in_a_large_collection(tmp_path, backbone):
    found = Collection(tmp_path, backbone, pictures(600, 9))
    listed, tallies = check(found, found.weights(), 1e-3, grids=(2, 4))
    left = [sum(tally.left.get(stage, 0) for tally in tallies) for stage in tallies[0].left]
    assert [stage.split()[-1] for stage in tallies[0].left] == ["directions", "2x2", "4x4"]
    assert listed <= left[2] <= left[1] <= left[0] < 600 * 599 / 2 / 50
    # Where nearly all pairs are close finer bounds are left out, and it makes no difference
    check(found, found.weights(), 1e3, grids=(2, 4))
    found.store.close()


def test_negative_weights_need_all_distances(collection):
    weights = collection.weights(negative=True)
    for below in (-0.001, 0.0, 0.001):
        check(collection, weights, below, grids=())


def test_memory_and_cells_do_not_change_a_byte(collection, monkeypatch):
    weights = collection.weights()
    plenty = collection.below(weights, 0.0225)
    row_bytes = 2 * collection.layout.length
    least = int(16 * (row_bytes + 2 * 4 * 4096) / 0.75) + 1000
    assert rows_that_fit(row_bytes, least) < 20
    for memory in (least, 4 * least):
        little = collection.below(weights, 0.0225, memory=memory)
        assert all(map(np.array_equal, plenty[:3], little[:3]))
    monkeypatch.setattr("lpipstore.pipeline.search.refine._DENSE_SHARE", 10**9)
    always_by_product = collection.below(weights, 0.0225)
    assert all(map(np.array_equal, plenty[:3], always_by_product[:3]))
    monkeypatch.setattr("lpipstore.pipeline.search.refine._DENSE_SHARE", 0)
    monkeypatch.setattr("lpipstore.pipeline.search.cascade._DENSE_SHARE", 0)
    never_by_product = collection.below(weights, 0.0225)
    assert all(map(np.array_equal, plenty[:3], never_by_product[:3]))


def by_matrix(collection, weights, below, first=0):
    """Return i, j and distance of the parts from `first` on, as the matrix finds them."""
    search = collection.search(weights)
    candidates = search.candidates(first, below, lambda *_: None)
    search.below_by_matrix(first, below, candidates, silent)
    parts = [search.decide(k, candidates.pairs(), below)[0] for k in range(first, search.parts)]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


@pytest.mark.parametrize("below", [0.0, 1e-3, 0.01, 0.0225, 1e6])
def test_the_matrix_finds_the_same_bytes(collection, below):
    weights = collection.weights()
    bounds = collection.below(weights, below)[:3]
    assert all(map(np.array_equal, bounds, by_matrix(collection, weights, below)))


def test_a_search_gives_up_where_bounds_rule_little_out(tmp_path, backbone, monkeypatch):
    """What was done until then is a small part of what the matrix takes."""
    monkeypatch.setattr("lpipstore.pipeline.search.cascade._MOST_PAIRS", 1 << 15)
    found = Collection(tmp_path, backbone, pictures(1100, 3, 0.1))
    weights = found.weights()
    search, tally = found.search(weights), Tally()
    assert search.bounds_pay(1e-3, tally)
    assert search.try_below(0, 1e-3, tally) is not None
    assert not search.bounds_pay(0.03, tally)
    tally = Tally()
    assert search.try_below(0, 0.03, tally) is None
    assert tally.arithmetic < search.arithmetic * 0.6  # after one strip of blocks
    later = found.below(weights, 0.03)[:3]
    since = later[0] >= 1024
    parts = by_matrix(found, weights, 0.03, first=1)
    assert all(np.array_equal(a[since], b) for a, b in zip(later, parts, strict=True))
    assert not found.search(weights, grids=()).bounds_pay(1e-3, Tally())
    found.store.close()


def test_candidates_are_saved_once_each():
    saved = []
    tiles = CandidateTiles(0.5, 2, 0, lambda pairs, done: saved.append((pairs, done)), 2)
    matrix = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    every = [(i, j) for i in range(4) for j in range(i, 4)]
    for row, column in every:
        tiles.write(row, column, matrix[2 * row : 2 * row + 2, 2 * column : 2 * column + 2])
    wanted = np.argwhere(np.triu(matrix < 0.5, 1))
    assert sorted(tiles.pairs().tolist()) == wanted.tolist()
    assert [len(done) for _, done in saved] == [2] * 5
    assert sum(len(pairs) for pairs, _ in saved) == len(wanted)
    again = CandidateTiles(0.5, 2, 0, lambda *_: None, 2)
    for part in saved[:2]:
        again.add(*part)
    assert [again.done(*tile) for tile in every] == [True] * 4 + [False] * 6


def test_order_does_not_change_a_distance(collection, tmp_path, backbone):
    weights = collection.weights()
    i, j, distance, _ = collection.below(weights, 0.0225)
    order = np.random.default_rng(5).permutation(COUNT)
    moved = Collection(tmp_path, backbone, pictures(COUNT)[torch.from_numpy(order)])
    k, m, same, _ = moved.below(weights, 0.0225)
    straight = {frozenset(pair): d for *pair, d in zip(i, j, distance, strict=True)}
    shuffled = {frozenset((order[a], order[b])): d for a, b, d in zip(k, m, same, strict=True)}
    assert straight == shuffled
    moved.store.close()


def test_pooled_rows_are_made_once_and_full_rows_read_for_close_pairs_only(tmp_path, backbone):
    found = Collection(tmp_path, backbone, pictures(60, duplicates=0.1))
    weights = found.weights()
    found.below(weights, 1e-3)
    assert found.features.forwards == 60
    found.features.rows_read = 0
    listed = len(found.below(weights, 1e-3)[0])
    assert found.features.forwards == 60
    assert 0 < found.features.rows_read <= 16 + 2 * listed + 10
    found.store.close()


def test_rows_that_are_in_the_store_need_no_forward(tmp_path, backbone):
    found = Collection(tmp_path, backbone, pictures(20))
    found.features.ensure(found.contents)
    forwards = found.features.forwards
    pooled = PooledRows(found.features, (2, 4))
    assert pooled.ensure(found.contents) == len(set(found.contents))
    assert found.features.forwards == forwards
    assert not found.store.missing(pooled.keys(found.contents))
    found.store.close()


def test_pooled_rows_that_got_lost_are_made_again(tmp_path, backbone):
    found = Collection(tmp_path, backbone, pictures(20))
    pooled = PooledRows(found.features, (2, 4))
    pooled.ensure(found.contents)
    before = {grid: pooled.read(grid, found.contents) for grid in (2, 4)}
    found.store.clear({"pooled": "2x2"})
    assert found.store.missing(pooled.keys(found.contents))
    assert np.array_equal(pooled.read(2, found.contents), before[2])
    found.store.clear()
    assert np.array_equal(pooled.read(4, found.contents), before[4])
    found.store.close()


def test_windows_hold_all_pairs_and_never_too_many_rows():
    random = np.random.default_rng(0)
    pairs = np.sort(random.integers(0, 500, (3000, 2)), axis=1)
    dense, sparse = cells.split(pairs, 256, 1)
    assert not dense
    for room in (2, 17, 100, 1000):
        runs = list(cells.windows(pairs, sparse, room))
        assert np.array_equal(np.concatenate(runs), sparse)
        assert max(len(np.unique(pairs[run])) for run in runs) <= room


def nearest(collection, weights, most, below=np.inf, **options):
    search = collection.search(weights, **options)
    found = Neighbours(search.sides.searched, most)
    tallies = [search.nearest(step, found, below) for step in range(search.steps)]
    return found.table(), tallies


def nearest_by_matrix(matrix, most):
    apart = matrix.copy()
    np.fill_diagonal(apart, np.inf)
    order = np.argsort(apart, axis=1, kind="stable")[:, :most]
    return order, np.take_along_axis(apart, order, 1)


@pytest.mark.parametrize("most", [1, 7, COUNT - 1])
def test_the_nearest_are_those_of_the_matrix_bit_by_bit(collection, most):
    weights = collection.weights()
    table, _ = nearest(collection, weights, most)
    order, distances = nearest_by_matrix(collection.matrix(weights), most)
    assert np.array_equal(table["i"].reshape(COUNT, most)[:, 0], np.arange(COUNT))
    assert np.array_equal(table["j"].reshape(COUNT, most), order)
    assert np.array_equal(table["distance"].reshape(COUNT, most), distances)
    assert np.array_equal(table["rank"].reshape(COUNT, most)[0], np.arange(1, most + 1))


def test_the_nearest_under_negative_weights(collection):
    weights = collection.weights(negative=True)
    table, _ = nearest(collection, weights, 3, grids=())
    order, distances = nearest_by_matrix(collection.matrix(weights), 3)
    assert np.array_equal(table["j"].reshape(COUNT, 3), order)
    assert np.array_equal(table["distance"].reshape(COUNT, 3), distances)


def test_memory_does_not_change_the_nearest(collection):
    weights = collection.weights()
    plenty, _ = nearest(collection, weights, 2)
    memory = 200 * (2 * collection.layout.length + 2 * 4 * 4096)
    little, _ = nearest(collection, weights, 2, memory=memory)
    assert all(np.array_equal(plenty[name], little[name]) for name in plenty)


def test_films_are_compared_with_their_own_frames_only(tmp_path, backbone):
    """Twelve scenes of 64 frames each: other blocks are ruled out for almost all images."""
    random = np.random.default_rng(0)
    scenes = np.kron(random.integers(0, 256, (12, 1, 4, 4, 3)), np.ones((1, 1, 8, 8, 1)))
    frames = scenes + random.integers(-2, 3, (12, 64, 32, 32, 3))
    pixels = frames.reshape(-1, 32, 32, 3).clip(0, 255).astype(np.uint8)
    film = Collection(tmp_path, backbone, torch.from_numpy(pixels))
    weights = film.weights()
    table, tallies = nearest(film, weights, 3)
    order, distances = nearest_by_matrix(film.matrix(weights), 3)
    assert np.array_equal(table["j"].reshape(768, 3), order)
    assert np.array_equal(table["distance"].reshape(768, 3), distances)
    assert sum(tally.left.get("2x2", 0) for tally in tallies) < 768 * 767 / 2 / 100
    film.store.close()


def test_the_nearest_by_the_matrix_go_on_where_they_were(collection):
    """Every second tile is lost, others come twice: the same bytes."""
    weights = collection.weights()
    order, distances = nearest_by_matrix(collection.matrix(weights), 7)
    search = collection.search(weights, memory=40_000_000)
    found, done, states = Neighbours(COUNT, 7), set(), []
    tally = search.by_matrix(
        found, done, lambda: states.append((found.codes.copy(), set(done))), silent
    )
    assert tally.arithmetic == search.arithmetic
    codes, some = states[0]
    assert 0 < len(some) <= len(done)
    again = Neighbours(COUNT, 7, codes)
    search.by_matrix(again, some, lambda: None, silent)
    for neighbours in (found, again):
        table = neighbours.table()
        assert np.array_equal(table["j"].reshape(COUNT, 7), order)
        assert np.array_equal(table["distance"].reshape(COUNT, 7), distances)
    assert some == done


def test_bounds_pay_for_films_and_not_for_pictures_that_are_all_alike(tmp_path, backbone):
    found = Collection(tmp_path / "a", backbone, pictures(600, 4, 0.0))
    assert not found.search(found.weights()).pays(500, np.inf, Tally())
    assert not found.search(found.weights(), grids=()).pays(2, np.inf, Tally())
    tally = Tally()
    assert found.search(found.weights()).pays(5, 1e-6, tally)  # hardly any is so near
    assert tally.arithmetic > 0
    found.store.close()
    frames = pictures(60, 5, 0.0).repeat_interleave(10, 0)
    frames[::2, 0, 0] ^= 1
    film = Collection(tmp_path / "b", backbone, frames)
    assert film.search(film.weights()).pays(3, np.inf, Tally())
    film.store.close()


@pytest.mark.parametrize("grids", [(2,), ()])
def test_a_search_needs_less_memory_than_the_matrix(collection, grids):
    """Nothing pays more than an answer, where there is no room for tiles."""
    weights = collection.weights()
    search = collection.search(weights, memory=5_000_000, grids=grids)
    with pytest.raises(UsageError, match="memory is too small"):
        search.by_matrix(Neighbours(COUNT, 3), set(), lambda: None, silent)
    assert search.pays(3, np.inf, Tally())
    table, _ = nearest(collection, weights, 3, memory=5_000_000, grids=grids)
    order, _ = nearest_by_matrix(collection.matrix(weights), 3)
    assert np.array_equal(table["j"].reshape(COUNT, 3), order)
