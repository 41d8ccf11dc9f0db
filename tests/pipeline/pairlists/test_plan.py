"""Planning a list: which rows stand together, and what is a product."""

import numpy as np

from lpipstore.pipeline.pairlists.plan import SAME, UNUSABLE, plan_list

ROW_BYTES = 1000


def keys_of(count, seed=0):
    random = np.random.default_rng(seed)
    return [random.bytes(16) for _ in range(count)]


def plan_of(pairs, keys, row_bytes=ROW_BYTES):
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T
    return plan_list(left, right, keys, row_bytes)


def ends_of(plan, pair):
    """The images of a planned pair."""
    return set(plan.rows[plan.pairs[pair]].tolist())


def test_each_pair_of_the_list_is_planned_once():
    pairs = [(0, 1), (1, 0), (2, 3), (0, 1), (4, 4), (-1, 2), (3, -1), (-1, -1)]
    plan = plan_of(pairs, keys_of(6))
    assert len(plan.pairs) == 2
    assert plan.place.tolist()[4:] == [SAME, UNUSABLE, UNUSABLE, UNUSABLE]
    assert plan.place[0] == plan.place[1] == plan.place[3]
    assert ends_of(plan, plan.place[0]) == {0, 1}
    assert ends_of(plan, plan.place[2]) == {2, 3}
    assert sorted(plan.rows.tolist()) == [0, 1, 2, 3]  # 4 needs no row
    assert (plan.pairs[:, 0] < plan.pairs[:, 1]).all()


def test_a_list_without_two_different_images_needs_no_rows():
    for pairs in ([(0, 0), (1, 1)], [(-1, 0)], []):
        plan = plan_of(pairs, keys_of(2))
        assert len(plan.rows) == len(plan.pairs) == len(plan.cells) == 0


def test_order_and_direction_of_the_list_change_only_places():
    random = np.random.default_rng(1)
    keys = keys_of(900)
    pairs = random.integers(0, 900, (5000, 2))
    one = plan_of(pairs, keys)
    order = random.permutation(len(pairs))
    two = plan_of(pairs[order][:, ::-1], keys)
    for name in ("rows", "pairs", "cells", "cell_of", "dense"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert np.array_equal(one.place[order], two.place)


def test_numbering_of_the_images_makes_no_difference():
    random = np.random.default_rng(2)
    keys = keys_of(400)
    pairs = random.integers(0, 400, (900, 2))
    one = plan_of(pairs, keys)
    renumber = random.permutation(400)
    shuffled: list[bytes] = [b""] * 400
    for old, new in enumerate(renumber):
        shuffled[new] = keys[old]
    two = plan_of(renumber[pairs], shuffled)
    assert np.array_equal(renumber[one.rows], two.rows)
    assert np.array_equal(one.pairs, two.pairs)
    assert np.array_equal(one.place, two.place)


def test_cells_hold_the_pairs_in_order():
    random = np.random.default_rng(3)
    plan = plan_of(random.integers(0, 1200, (9000, 2)), keys_of(1200))
    assert plan.block == 256
    assert np.array_equal(plan.cells[plan.cell_of], plan.pairs // 256)
    assert (np.diff(plan.cell_of) >= 0).all()
    assert len(plan.cells) == 15


def test_what_is_connected_stands_together():
    """Pairs of neighbours, as frames of films: nearly all cells are on the diagonal."""
    random = np.random.default_rng(4)
    names = random.permutation(4000)
    films = names.reshape(40, 100)
    pairs = np.stack([films[:, :-1].ravel(), films[:, 1:].ravel()], axis=1)
    plan = plan_of(random.permutation(pairs), keys_of(4000))
    assert np.abs(plan.pairs[:, 0] - plan.pairs[:, 1]).max() <= 2
    couples = names.reshape(-1, 2)
    plan = plan_of(random.permutation(couples), keys_of(4000))
    assert (plan.cells[:, 0] == plan.cells[:, 1]).all()


def test_full_cells_are_products_and_thin_ones_are_not():
    random = np.random.default_rng(5)
    full = np.stack(np.triu_indices(256, 1), axis=1)
    chain = np.stack([np.arange(300, 900), np.arange(301, 901)], axis=1)
    plan = plan_of(np.concatenate([full, chain]), keys_of(901))
    wanted = np.bincount(plan.cell_of)
    assert plan.dense.any()
    assert not plan.dense.all()
    assert wanted[plan.dense].min() > wanted[~plan.dense].max()
    thin = plan_of(random.permutation(chain), keys_of(901))
    assert not thin.dense.any()


def test_distances_are_spread_over_the_list():
    plan = plan_of([(1, 0), (2, 2), (0, 1), (-1, 0)], keys_of(3))
    listed = plan.in_list_order(np.array([0.5], np.float32))
    assert listed.dtype == np.float32
    assert listed[:3].tolist() == [0.5, 0.0, 0.5]
    assert np.isnan(listed[3])
