"""The arithmetic of rows against float64, and what must not change a bit of it."""

import numpy as np
import pytest
import torch

from lpipstore.pipeline.backbones.layout import RowLayout
from lpipstore.pipeline.distances import near
from lpipstore.pipeline.distances.direct import direct_distances
from lpipstore.pipeline.distances.distances import (
    DIRECT_BELOW,
    block_of,
    gram_distances,
    pair_statistics,
)
from lpipstore.pipeline.distances.near import near_distances
from lpipstore.pipeline.distances.panels import Columns
from lpipstore.pipeline.features.rows import STEPS, centre_of, row_taps

CPU = torch.device("cpu")
LAYOUT = RowLayout(((48, 12, 12), (64, 5, 5), (96, 2, 2)))


def stored(values, dtype):
    """Values of rows as the row dtype holds them."""
    steps = STEPS[dtype]
    return values if dtype == "float32" else (values * steps).round().to(getattr(torch, dtype))


def channel_weights(sign=1.0, dead=0.4, seed=0):
    """One weight for each channel: a share of them 0, and some negative if sign is -1."""
    random = np.random.default_rng(seed)
    weights = random.random(sum(LAYOUT.channels)).astype(np.float32)
    weights[random.random(len(weights)) < dead] = 0
    if sign < 0:
        weights[random.random(len(weights)) < 0.3] *= -0.4
    return weights


def spread(weights):
    """Column weights of channel weights: w / (H W)."""
    parts = np.split(weights, np.cumsum(LAYOUT.channels)[:-1])
    return np.concatenate(
        [
            np.repeat(part / (height * width), height * width)
            for part, (_, height, width) in zip(parts, LAYOUT.taps, strict=True)
        ]
    ).astype(np.float32)


def make_rows(count, dtype="uint16", seed=0):
    """Unit-normalised random taps, a few rows equal or nearly so, as stored."""
    random = torch.Generator().manual_seed(seed)
    taps = [torch.rand(count, *shape, generator=random) ** 3 for shape in LAYOUT.taps]
    taps = [tap / tap.norm(dim=1, keepdim=True) for tap in taps]
    if dtype == "int16":
        taps = [tap * (torch.rand(tap.shape, generator=random) - 0.5).sign() for tap in taps]
    rows = torch.cat([tap.flatten(1) for tap in taps], 1)
    if count > 9:
        rows[7] = rows[2]
        rows[9] = rows[4] + 1e-3 * torch.rand(rows.shape[1], generator=random)
    return stored(rows, dtype)


def exact(left, right, weights, dtype):
    """Distances in float64, from the definition."""
    x, y = (side.to(torch.float64).numpy() / STEPS[dtype] for side in (left, right))
    v = weights.astype(np.float64)
    return np.stack([((x - row) ** 2) @ v for row in y], axis=1)


def gram(rows, weights, dtype="uint16", right=None, block=None):
    columns = Columns.of(weights, dtype, CPU)
    centre = centre_of(rows[:16])
    return gram_distances(rows, right, columns, centre, block or block_of(len(rows), 1)).numpy()


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("count", [2, 33, 300])
def test_all_pairs_equal_the_definition(dtype, sign, count):
    rows, weights = make_rows(count, dtype), spread(channel_weights(sign))
    computed, expected = gram(rows, weights, dtype), exact(rows, rows, weights, dtype)
    assert np.abs(computed - expected).max() < 1e-6
    small = (np.abs(expected) < DIRECT_BELOW) & (expected != 0)
    if sign > 0:
        assert (np.abs(computed - expected)[small] <= 1e-5 * expected[small]).all()
        assert computed.min() >= 0
    assert np.array_equal(computed, computed.T)
    assert (computed.diagonal() == 0).all()
    if count > 9:
        assert computed[2, 7] == 0
        assert 0 < abs(computed[4, 9]) < 1e-4


def test_two_sets_equal_the_definition():
    left, right, weights = make_rows(20), make_rows(35, seed=1), spread(channel_weights())
    right[3] = left[5]
    computed = gram(left, weights, right=right)
    assert np.abs(computed - exact(left, right, weights, "uint16")).max() < 1e-6
    assert computed[5, 3] == 0


def test_order_does_not_change_a_bit():
    rows, weights = make_rows(300), spread(channel_weights())
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    columns, centre = Columns.of(weights, "uint16", CPU), centre_of(rows[:16])
    straight = gram_distances(rows, None, columns, centre, 256)
    moved = torch.from_numpy(rows.numpy()[order.numpy()])  # torch 2.8 cannot index uint16
    shuffled = gram_distances(moved, None, columns, centre, 256)
    assert torch.equal(shuffled, straight[order][:, order])


@pytest.mark.parametrize("count", [3, 24, 70, 200, 261, 330])
def test_places_and_threads_do_not_change_a_bit(count):
    """Turned round, pairs stand in products of other shapes: the last blocks are not full."""
    rows, weights = make_rows(count), spread(channel_weights())
    columns, centre = Columns.of(weights, "uint16", CPU), centre_of(rows[:16])
    block, threads = block_of(count, 1), torch.get_num_threads()
    straight = gram_distances(rows, None, columns, centre, block)
    turned = torch.from_numpy(rows.numpy()[::-1].copy())
    assert torch.equal(gram_distances(turned, None, columns, centre, block).flip(0, 1), straight)
    try:
        for number in (1, 2, 3, 8, 16, 64):
            torch.set_num_threads(number)
            assert torch.equal(gram_distances(rows, None, columns, centre, block), straight)
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("slab", "block"), [(256, 256), (512, 256), (128, 32)])
def test_computing_in_slabs_does_not_change_a_bit(slab, block):
    rows, weights = make_rows(600), spread(channel_weights())
    columns, centre = Columns.of(weights, "uint16", CPU), centre_of(rows[:16])
    whole = gram_distances(rows, None, columns, centre, block)
    for top in range(0, 600, slab):
        for left in range(top, 600, slab):
            right = None if left == top else rows[left : left + slab]
            part = gram_distances(rows[top : top + slab], right, columns, centre, block)
            assert torch.equal(part, whole[top : top + slab, left : left + slab])


def test_direct_distances_do_not_depend_on_their_company():
    rows, weights = make_rows(40), spread(channel_weights())
    columns = Columns.of(weights, "uint16", CPU)
    pairs = torch.combinations(torch.arange(40))[:200]
    together = direct_distances(rows, rows, pairs, columns)
    alone = torch.cat([direct_distances(rows, rows, pair[None], columns) for pair in pairs])
    swapped = direct_distances(rows, rows, pairs.flip(1), columns)
    assert torch.equal(together, alone)
    assert torch.equal(together, swapped)


@pytest.mark.parametrize("count", [1, 2, 100, 400])
def test_threads_share_direct_distances_without_changing_a_bit(count):
    rows, weights = make_rows(40), spread(channel_weights())
    columns, threads = Columns.of(weights, "uint16", CPU), torch.get_num_threads()
    pairs = torch.combinations(torch.arange(40))[:count]
    known = direct_distances(rows, rows, pairs, columns)
    try:
        for number in (1, 2, 3, 5):
            torch.set_num_threads(number)
            assert torch.equal(direct_distances(rows, rows, pairs, columns), known)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("count", [1, 7, 150, 300])
def test_what_is_beyond_need_not_be_known_better(count):
    rows, weights = make_rows(40), spread(channel_weights())
    columns = Columns.of(weights, "uint16", CPU)
    pairs = torch.combinations(torch.arange(40))[:count]
    known = direct_distances(rows, rows, pairs, columns)
    beyond = float(known.median())
    found = direct_distances(rows, rows, pairs, columns, beyond)
    near = known <= beyond
    assert torch.equal(found[near], known[near])
    assert (found[~near] > beyond).all()
    assert (found <= known).all()


@pytest.mark.parametrize("count", [1, 2, 3, 100, 193, 400])
def test_direct_distances_of_rows_of_many_panels(count, monkeypatch):
    rows, weights = make_rows(40), spread(channel_weights(-1.0))
    pairs = torch.combinations(torch.arange(40))[:count]
    known = direct_distances(rows, rows, pairs, Columns.of(weights, "uint16", CPU))
    monkeypatch.setattr("lpipstore.pipeline.distances.panels.PANEL", 16)
    monkeypatch.setattr("lpipstore.pipeline.distances.panels.WHOLE", 16)
    columns = Columns.of(weights, "uint16", CPU)
    assert len(columns.panels) > 300
    assert torch.allclose(direct_distances(rows, rows, pairs, columns), known, atol=1e-6)
    others = direct_distances(rows, rows.clone(), pairs, columns)
    assert torch.equal(others, direct_distances(rows, rows, pairs, columns))


def test_negative_weights_give_nothing_up():
    rows, weights = make_rows(40), spread(channel_weights(-1.0))
    columns = Columns.of(weights, "uint16", CPU)
    pairs = torch.combinations(torch.arange(40))
    known = direct_distances(rows, rows, pairs, columns)
    assert torch.equal(direct_distances(rows, rows, pairs, columns, 0.0), known)


def test_dead_columns_take_no_part():
    weights = spread(channel_weights(dead=0.6))
    columns = Columns.of(weights, "uint16", CPU)
    taken = np.zeros(len(weights), int)
    for panel in columns.panels:
        for part in panel:
            taken[part] += 1
    assert taken.max() == 1
    assert (taken[weights != 0] == 1).all()
    assert taken.sum() < len(weights)
    rows = make_rows(20)
    spoilt = rows.clone()
    spoilt.numpy()[:, taken == 0] = 12345
    assert np.array_equal(gram(rows, weights), gram(spoilt, weights))


def test_a_head_of_zeros_sees_no_difference():
    assert (gram(make_rows(5), np.zeros(LAYOUT.length, np.float32)) == 0).all()


def test_statistics_times_weights_are_the_distances():
    rows, weights = make_rows(12), channel_weights(-1.0)
    statistics = pair_statistics(rows[:6], rows[6:], LAYOUT, "uint16")
    expected = exact(rows[:6], rows[6:], spread(weights), "uint16").diagonal()
    assert np.allclose(statistics.numpy() @ weights, expected, atol=1e-6)


def test_rows_give_their_taps_back():
    rows = make_rows(3, "float32")
    taps = row_taps(rows, LAYOUT, "float32")
    assert [tuple(tap.shape[1:]) for tap in taps] == list(LAYOUT.taps)
    assert torch.equal(torch.cat([tap.flatten(1) for tap in taps], 1), rows)


@pytest.mark.parametrize(
    ("count", "row_bytes", "block"),
    [(1, 1, 16), (17, 1, 32), (5000, 1, 256), (5000, 12_200_000, 32), (5000, 10**9, 16)],
)
def test_blocks_are_shorter_where_rows_are_long(count, row_bytes, block):
    assert block_of(count, row_bytes) == block


def still(count, dtype="uint16", step=3, seed=5):
    """Rows of a film that hardly moves: all pairs are nearly equal, and some rows are equal."""
    random = torch.Generator().manual_seed(seed)
    one = make_rows(1, "float32")
    rows = one + step / 65535 * (torch.rand(count, one.shape[1], generator=random) - 0.5)
    rows[count // 2] = rows[1]
    return stored(rows.clamp_(0, 1), dtype)


def test_near_pairs_of_flat_pictures_are_multiplied_wherever_they_stand(monkeypatch):
    """One in six rows is near all others of its kind; the rest has a neighbour or two."""
    random = torch.Generator().manual_seed(1)
    rows = stored(make_rows(1200, "float32"), "uint16").view(torch.int16)
    flat = torch.randperm(1200, generator=random)[:200].sort().values
    rows[flat] = still(200).view(torch.int16)
    rows, columns = rows.view(torch.uint16), Columns.of(spread(channel_weights()), "uint16", CPU)
    others = torch.randint(0, 1200, (400, 2), generator=random)
    pairs = torch.cat([torch.combinations(flat), others[others[:, 0] != others[:, 1]]])
    pairs = pairs[torch.randperm(len(pairs), generator=random)]
    expected = direct_distances(rows, rows, pairs, columns).to(torch.float32).to(torch.float64)
    singly = []
    monkeypatch.setattr(
        near,
        "direct_distances",
        lambda *given: singly.append(len(given[2])) or direct_distances(*given),
    )
    assert torch.equal(near.near_distances(rows, rows, pairs, columns), expected)
    assert sum(singly) < 0.05 * len(pairs)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("step", [3, 300])
def test_near_pairs_are_those_of_their_differences(dtype, sign, step):
    """Whatever is computed together: products, squares that were foreseen, or single pairs."""
    rows, weights = still(300, dtype, step), spread(channel_weights(sign))
    columns, centre = Columns.of(weights, dtype, CPU), centre_of(rows[:16])
    pairs = torch.combinations(torch.arange(300))
    expected = direct_distances(rows, rows, pairs, columns).to(torch.float32).to(torch.float64)
    assert torch.equal(near_distances(rows, rows, pairs, columns), expected)
    other = rows.clone()
    assert torch.equal(near_distances(rows, other, pairs.flip(1), columns), expected)
    found = gram_distances(rows, None, columns, centre, 256)
    assert torch.equal(found[pairs[:, 0], pairs[:, 1]], expected)
    assert torch.equal(found, found.T)
    assert found[1, 150] == 0
    if sign > 0:
        some = pairs[:, 0] < 20
        exactly = exact(rows, rows[:20], weights, dtype)[pairs[some, 1], pairs[some, 0]]
        assert np.allclose(expected[some], exactly, rtol=1e-6, atol=0)


@pytest.mark.parametrize("near", [40, 200, 300])
def test_near_pairs_among_others_do_not_depend_on_their_places(near):
    rows = make_rows(300, seed=2)
    rows.numpy()[:near] = still(near).numpy()
    columns = Columns.of(spread(channel_weights()), "uint16", CPU)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    centre = centre_of(rows[:16])
    straight = gram_distances(rows, None, columns, centre, 256)
    moved = torch.from_numpy(rows.numpy()[order.numpy()])
    assert torch.equal(gram_distances(moved, None, columns, centre, 256), straight[order][:, order])


def test_a_film_that_hardly_moves_takes_few_single_pairs(monkeypatch):
    """They take fifty times as long as products, and equal rows are found without them."""
    singly = []

    def counting(left, right, pairs, *rest):
        singly.append(len(pairs))
        return direct_distances(left, right, pairs, *rest)

    for module in ("near", "distances"):
        monkeypatch.setattr(f"lpipstore.pipeline.distances.{module}.direct_distances", counting)
    rows, weights = still(512), spread(channel_weights())
    rows.numpy()[300:400] = rows.numpy()[300]
    gram(rows, weights)
    assert sum(singly) < 512 * 511 // 2 / 100
