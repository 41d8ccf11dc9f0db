"""Searches across two collections: the answers of their dense matrix, whatever the sides."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
from lpipstore.pipeline.search.blocks import BLOCK
from lpipstore.pipeline.search.cascade import Tally
from lpipstore.pipeline.search.search import Search
from lpipstore.pipeline.search.sides import Sides
from lpipstore.pipeline.search.topk import Neighbours

MEMORY = 1_000_000_000


def pictures(count, seed=0, duplicates=0.3):
    """Random pictures of 32×32: some equal, some with noise of ±1 or more."""
    random = np.random.default_rng(seed)
    pixels = np.kron(random.integers(0, 256, (count, 4, 4, 3)), np.ones((1, 8, 8, 1)))
    for number in np.flatnonzero(random.random(count) < duplicates)[1:]:
        strength = random.choice([0, 1, 3, 10, 30])
        other = pixels[random.integers(0, number)]
        pixels[number] = other + random.integers(-strength, strength + 1, other.shape)
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))


class Whole:
    """An array with the interface of a matrix file."""

    def __init__(self, plan):
        self.array, self.tile = np.full((plan.rows, plan.columns), np.nan, np.float32), plan.tile

    def done(self, row, column):
        return False

    def write(self, row, column, distances):
        top, left = row * self.tile, column * self.tile
        height, width = distances.shape
        self.array[top : top + height, left : left + width] = distances


class Shelf:
    """A store with the rows of pictures, from which sides are chosen by number."""

    def __init__(self, folder, pixels):
        self.contents = [bytes(image.numpy().tobytes()) for image in pixels]
        by_content = dict(zip(self.contents, pixels, strict=True))
        self.store = FeatureStore(folder)
        extractor = Extractor(load_backbone("squeeze", weights="random"), (32, 32))
        self.features = Features(
            extractor, self.store, lambda which, batch: decode_arrays(by_content, which, batch)
        )
        self.layout, self.row_bytes = extractor.layout, extractor.spec.row_bytes
        PooledRows(self.features, (2, 4)).ensure(self.contents)

    def weights(self, seed=0, negative=False):
        random = np.random.default_rng(seed)
        parts = [random.random(count) / 30 for count in self.layout.channels]
        if negative:
            parts = [part * np.where(random.random(len(part)) < 0.2, -1, 1) for part in parts]
        return column_weights(make_head(parts, "random"), self.layout)

    def sides(self, first, second):
        return [[self.contents[number] for number in side] for side in (first, second)]

    def matrix(self, first, second, weights):
        down, across = self.sides(first, second)
        plan = plan_matrix(len(down), self.row_bytes, MEMORY, columns=len(across))
        matrix = Whole(plan)
        score_matrix(self.features, down, across, weights, plan, matrix)
        return matrix.array

    def search(self, first, second, weights, grids=(2,), memory=MEMORY, revisit=False):
        down, across = self.sides(first, second)
        pooled = PooledRows(self.features, grids)
        return Search(
            self.features,
            pooled,
            down + across,
            weights,
            memory,
            first=len(down),
            revisit=revisit,
        )


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """700 pictures; 0 to 299 and 300 to 699 are two sides of more than one block."""
    found = Shelf(tmp_path_factory.mktemp("store"), pictures(700))
    yield found
    found.store.close()


def below_by_bounds(search, below):
    parts = [search.below(part, below) for part in range(search.parts)]
    columns = [np.concatenate(column) for column in zip(*(part[0] for part in parts), strict=True)]
    return columns, [part[1] for part in parts]


def below_by_matrix(search, below, first=0):
    candidates = search.candidates(first, below, lambda *_: None)
    tally = search.below_by_matrix(first, below, candidates, silent)
    parts = [search.decide(k, candidates.pairs(), below)[0] for k in range(first, search.parts)]
    return [np.concatenate(column) for column in zip(*parts, strict=True)], tally


def nearest_by_bounds(search, most, below=np.inf):
    found = Neighbours(search.sides.searched, most)
    tallies = [search.nearest(step, found, below) for step in range(search.steps)]
    return search.sides.shown(found.table()), tallies


def nearest_by_matrix(search, most):
    found = Neighbours(search.sides.searched, most)
    tally = search.by_matrix(found, set(), lambda: None, silent)
    return search.sides.shown(found.table()), tally


def ranked(matrix, most):
    order = np.argsort(matrix, axis=1, kind="stable")[:, :most]
    return order, np.take_along_axis(matrix, order, 1)


def check_below(shelf, first, second, below, weights=None, **options):
    """Bounds and matrix give the same bytes, which are those of the dense matrix."""
    weights = shelf.weights() if weights is None else weights
    matrix = shelf.matrix(first, second, weights)
    search = shelf.search(first, second, weights, **options)
    (i, j, distance), tallies = below_by_bounds(search, below)
    i, j = search.sides.shown({"i": i, "j": j}).values()
    assert np.array_equal(np.stack([i, j], 1), np.argwhere(matrix.astype(np.float64) < below))
    assert np.abs(distance - matrix[i, j]).max(initial=0) <= 1e-7
    small = matrix[i, j] < 0.0099
    assert np.array_equal(distance[small], matrix[i, j][small])
    same, _ = below_by_matrix(search, below)
    assert np.array_equal(same[0], i)
    assert np.array_equal(same[1] - len(first), j)
    assert np.array_equal(same[2], distance)
    return len(i), tallies


def check_nearest(shelf, first, second, most, weights=None, **options):
    weights = shelf.weights() if weights is None else weights
    order, distances = ranked(shelf.matrix(first, second, weights), most)
    search = shelf.search(first, second, weights, revisit=True, **options)
    table, tallies = nearest_by_bounds(search, most)
    for found in (table, nearest_by_matrix(search, most)[0]):
        assert np.array_equal(found["i"], np.repeat(np.arange(len(first)), most))
        assert np.array_equal(found["rank"], np.tile(np.arange(1, most + 1), len(first)))
        assert np.array_equal(found["j"].reshape(-1, most), order)
        assert np.array_equal(found["distance"].reshape(-1, most), distances)
    return tallies


SHAPES = {  # images of the first side, of the second: borders within, at and beyond a block
    "one against many": (range(1), range(200, 700)),
    "many against one": (range(300), range(699, 700)),
    "one block": (range(100), range(300, 356)),
    "at the border": (range(256), range(300, 556)),
    "across the border": (range(300), range(300, 700)),
    "the same images": (range(260), range(260)),
    "some in both": (range(290), range(200, 490)),
    "repeated": ([*range(20), *range(20)], [5, 5, 5, *range(18, 300)]),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("below", [0.0, 0.005, 0.0225, 1e6])
def test_close_pairs_are_those_of_the_matrix(shelf, shape, below):
    check_below(shelf, *SHAPES[shape], below)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("most", [1, 7])
def test_the_nearest_are_those_of_the_matrix_bit_by_bit(shelf, shape, most):
    first, second = SHAPES[shape]
    check_nearest(shelf, first, second, min(most, len(second)))


def test_all_of_the_other_side_can_be_asked_for(shelf):
    check_nearest(shelf, range(300), range(300, 700), 400)


def test_an_image_of_both_sides_is_its_own_nearest(shelf):
    first, second = SHAPES["some in both"]
    table, _ = nearest_by_bounds(shelf.search(first, second, shelf.weights()), 1)
    twins = table["distance"][200:]  # the first side's images from 200 on
    assert (twins == 0).all()


@pytest.mark.parametrize("grids", [(2,), (2, 4), (4,)])
def test_directions_and_grids_change_nothing(shelf, grids):
    """700 images: directions come before the grids."""
    first, second = SHAPES["across the border"]
    _, tallies = check_below(shelf, first, second, 1e-3, grids=grids)
    assert next(iter(tallies[0].left)).endswith("directions")
    check_nearest(shelf, first, second, 3, grids=grids)


def test_negative_weights_need_all_distances(shelf):
    weights = shelf.weights(negative=True)
    first, second = SHAPES["across the border"]
    for below in (-0.001, 0.0, 0.001):
        check_below(shelf, first, second, below, weights, grids=())
    check_nearest(shelf, first, second, 3, weights, grids=())
    search = shelf.search(first, second, weights, grids=())
    assert not search.bounds_pay(0.001, Tally())
    assert not search.pays(3, np.inf, Tally())


def test_the_rounding_of_the_matrix_decides_at_the_threshold(shelf):
    first, second = SHAPES["across the border"]
    weights = shelf.weights()
    distances = np.sort(shelf.matrix(first, second, weights).astype(np.float64), None)
    close = distances[(distances > 0.01) & (distances < 0.0225)]
    threshold = close[len(close) // 2]
    for below in (threshold, np.nextafter(np.float32(threshold), np.float32(1))):
        check_below(shelf, first, second, float(below), weights)


def test_memory_and_products_do_not_change_a_byte(shelf, monkeypatch):
    weights, shape = shelf.weights(), SHAPES["across the border"]
    close, _ = below_by_bounds(shelf.search(*shape, weights), 0.0225)
    near, _ = nearest_by_bounds(shelf.search(*shape, weights, revisit=True), 4)
    least = int(16 * (shelf.row_bytes + 2 * 4 * 4096) / 0.75) + 1000
    for memory in (least, 4 * least, 30 * least):
        little, _ = below_by_bounds(shelf.search(*shape, weights, memory=memory), 0.0225)
        assert all(map(np.array_equal, close, little))
        search = shelf.search(*shape, weights, memory=memory, revisit=True)
        table, _ = nearest_by_bounds(search, 4)
        assert all(np.array_equal(near[name], table[name]) for name in near)
    with pytest.raises(UsageError, match="memory is too small"):
        shelf.search(*shape, weights, memory=least // 2)
    for share in (10**9, 0):  # always by products, never
        monkeypatch.setattr("lpipstore.pipeline.search.refine._DENSE_SHARE", share)
        monkeypatch.setattr("lpipstore.pipeline.search.cascade._DENSE_SHARE", share)
        other, _ = below_by_bounds(shelf.search(*shape, weights), 0.0225)
        assert all(map(np.array_equal, close, other))


def test_most_pairs_are_ruled_out(shelf):
    first, second = SHAPES["across the border"]
    weights = shelf.weights()
    listed, tallies = check_below(shelf, first, second, 1e-3)
    left = sum(tally.left["2x2"] for tally in tallies)
    assert 0 < listed <= left < len(first) * len(second) / 100
    whole = shelf.search(first, second, weights)
    assert sum(tally.arithmetic for tally in tallies) < whole.arithmetic / 10


def test_a_search_gives_up_where_bounds_rule_little_out(shelf, monkeypatch):
    monkeypatch.setattr("lpipstore.pipeline.search.cascade._MOST_PAIRS", 1 << 15)
    search = shelf.search(range(300), range(300, 700), shelf.weights())
    assert search.bounds_pay(1e-3, Tally())
    assert search.try_below(0, 1e-3, Tally()) is not None
    assert not search.bounds_pay(0.03, Tally())
    tally = Tally()
    assert search.try_below(0, 0.03, tally) is None
    assert tally.arithmetic < search.arithmetic
    assert below_by_matrix(search, 0.03)[1].arithmetic == search.arithmetic
    assert not search.pays(300, np.inf, Tally())
    assert search.pays(3, 1e-6, Tally())


def test_the_nearest_by_the_matrix_go_on_where_they_were(shelf, monkeypatch):
    monkeypatch.setattr("lpipstore.pipeline.matrix.plan._TILE", 64)  # so that a block is a tile
    first, second = SHAPES["across the border"]
    search = shelf.search(first, second, shelf.weights())
    found, done, states = Neighbours(len(first), 5), set(), []
    search.by_matrix(found, done, lambda: states.append((found.codes.copy(), set(done))), silent)
    codes, some = states[len(states) // 2]
    assert 0 < len(some) < len(done)
    again = Neighbours(len(first), 5, codes)
    search.by_matrix(again, some, lambda: None, silent)
    assert np.array_equal(again.codes, found.codes)
    assert some == done


def test_later_parts_come_out_of_the_matrix_alone(tmp_path):
    """1,100 images on the first side: two parts, the second by candidates of its own."""
    large = Shelf(tmp_path, pictures(1300, 3, 0.1))
    search = large.search(range(1100), range(1000, 1300), large.weights())
    assert search.parts == 2
    close, _ = below_by_bounds(search, 0.02)
    (i, j, distance), tally = below_by_matrix(search, 0.02, first=1)
    later = close[0] >= 4 * BLOCK
    assert 0 < later.sum() < len(later)
    for one, other in zip(close, (i, j, distance), strict=True):
        assert np.array_equal(one[later], other)
    assert tally.arithmetic < search.arithmetic
    large.store.close()


@given(data=st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_sides(shelf, data):
    """Any images on either side, in any order and any number of times."""
    numbers = st.lists(st.integers(0, 120), min_size=1, max_size=24)
    first, second = data.draw(numbers, "first"), data.draw(numbers, "second")
    negative = data.draw(st.booleans(), "negative")
    weights = shelf.weights(data.draw(st.integers(0, 3), "head"), negative=negative)
    grids = () if negative else data.draw(st.sampled_from([(2,), (4,), (2, 4), ()]), "grids")
    below = data.draw(st.sampled_from([0.0, 1e-4, 0.005, 0.02, 0.03, 1.0]), "below")
    check_below(shelf, first, second, below, weights, grids=grids)
    most = data.draw(st.integers(1, len(second)), "most")
    check_nearest(shelf, first, second, most, weights, grids=grids)


@given(first=st.integers(1, 1200), second=st.integers(1, 1200), single=st.booleans())
def test_blocks_and_their_partners_have_every_pair_once(first, second, single):
    sides = Sides(first + second, None if single else first)
    pairs = 0
    for block in range(sides.blocks):
        top, across = sides.top(block), sides.across(sides.partners(block))
        pairs += int((across[None, :] > top[:, None]).sum())
        assert top.max() < sides.searched
        assert across.max() == sides.count - 1
    assert pairs == sides.pairs
