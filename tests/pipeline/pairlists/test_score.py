"""Scoring a list from rows: against float64, in any memory, from any beginning."""

import itertools

import numpy as np
import pytest

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.pairlists.parts import cover
from lpipstore.pipeline.pairlists.plan import plan_list
from lpipstore.pipeline.pairlists.schedule import room_for, steps
from lpipstore.pipeline.pairlists.score import InMemory, score_list

LEAST = 2 * 256 * (2 * 1152 + 4 * 4096) + 256**2 * 24  # bytes: two blocks of the shelf's rows
MEMORIES = (LEAST, 2 * LEAST, 3 * LEAST, 10**9)


def list_of(kind, count):
    """Pairs that are all products, all differences, and some of each."""
    random = np.random.default_rng(7)
    close = [[2, 7], [9, 4], [5, 5]]
    if kind == "dense":
        return np.concatenate([close, random.integers(0, count, (count * count // 5, 2))])
    if kind == "thin":
        return np.concatenate([close, random.integers(0, count, (count, 2))])
    crowd = random.integers(0, 300, (9000, 2))
    return np.concatenate([close, crowd, random.integers(0, count, (700, 2))])


def score(shelf, pairs, memory=10**9, values=None):
    """Distances of the list, and of the plan's pairs."""
    left, right = pairs.T
    plan = plan_list(left, right, shelf.keys, shelf.row_bytes)
    if values is None:
        values = np.full(len(plan.pairs), np.nan, np.float32)
    kept = InMemory(values)
    room = room_for(memory, shelf.row_bytes, plan.block)
    score_list(shelf.features, shelf.contents, shelf.weights, plan, room, kept)
    return plan.in_list_order(kept.values), kept.values


@pytest.mark.parametrize("kind", ["dense", "thin", "mixed"])
def test_distances_are_those_of_the_definition(shelve, kind):
    shelf = shelve(900)
    pairs = list_of(kind, 900)
    listed, _ = score(shelf, pairs)
    pairs, listed = pairs[:5000], listed[:5000]
    exact = shelf.exact(*pairs.T)
    assert np.abs(listed - exact).max() < 1e-6
    close = (exact < 1e-2) & (exact > 0)
    assert close[:2].all()
    assert (np.abs(listed - exact) <= 2e-6 * exact)[close].all()
    assert (listed[pairs[:, 0] == pairs[:, 1]] == 0).all()


@pytest.mark.parametrize("kind", ["dense", "thin", "mixed"])
def test_memory_does_not_change_a_byte(shelve, kind):
    shelf = shelve(1100)
    pairs = list_of(kind, 1100)
    results = {score(shelf, pairs, memory)[0].tobytes() for memory in MEMORIES}
    assert len(results) == 1


def test_order_and_direction_do_not_change_a_bit(shelve):
    shelf = shelve(700)
    pairs = list_of("mixed", 700)
    order = np.random.default_rng(0).permutation(len(pairs))
    one, _ = score(shelf, pairs)
    two, _ = score(shelf, pairs[order][:, ::-1])
    assert np.array_equal(one[order], two)


def test_what_is_known_is_not_computed_again(shelve):
    shelf = shelve(600)
    pairs = list_of("mixed", 600)
    listed, values = score(shelf, pairs)
    random = np.random.default_rng(0)
    for known in (0.02, 0.5, 0.98):
        part = np.where(random.random(len(values)) < known, values, np.float32(np.nan))
        marked = part.copy()
        marked[~np.isnan(part)] = 9  # a distance that no pair has: it must stay
        _, again = score(shelf, pairs, values=part)
        assert np.array_equal(again, values)
        _, again = score(shelf, pairs, LEAST, values=marked)
        assert np.array_equal(again == 9, marked == 9)
    assert np.array_equal(listed, score(shelf, pairs, values=values)[0])


def test_rows_that_fit_are_read_once(shelve, monkeypatch):
    shelf = shelve(900)
    reads = shelf.count_reads(monkeypatch)
    score(shelf, list_of("dense", 900))
    centre = 16  # rows that the centre is taken from are read before
    assert sum(reads.values()) == 900 + centre
    assert max(reads.values()) == 2


def test_rows_that_fit_half_are_read_few_times(shelve, monkeypatch):
    shelf = shelve(1500)  # six blocks
    pairs = list_of("dense", 1500)
    reads = shelf.count_reads(monkeypatch)
    score(shelf, pairs, LEAST)  # room for two: one stays, the others pass by
    assert sum(reads.values()) <= (6 + 5 + 4 + 3 + 2 + 1) * 256 + 16
    reads.update(dict.fromkeys(reads, 0))
    score(shelf, pairs, int(2.2 * LEAST))  # room for four: three stay, three pass by
    assert sum(reads.values()) <= (6 + 3) * 256 + 16


def test_pairs_of_neighbours_need_each_row_about_once(shelve, monkeypatch):
    shelf = shelve(2000)
    chain = np.stack([np.arange(1999), np.arange(1, 2000)], axis=1)
    reads = shelf.count_reads(monkeypatch)
    score(shelf, chain, LEAST)
    assert sum(reads.values()) <= 1.1 * 2000


def test_steps_hold_every_pair_once_and_keep_within_the_room(shelve):
    shelf = shelve(1500)
    for kind, memory in itertools.product(("dense", "thin", "mixed"), MEMORIES):
        plan = plan_list(*list_of(kind, 1500).T, shelf.keys, shelf.row_bytes)
        room = room_for(memory, shelf.row_bytes, plan.block)
        todo = np.arange(len(plan.pairs))[::3]
        seen = []
        for step in steps(plan, todo, room):
            right = step.left if step.right is None else step.right
            held = len(step.left.rows) + (0 if step.right is None else len(step.right.rows))
            assert held <= room.rows
            first, second = plan.pairs[step.pairs].T
            assert np.array_equal(step.left.rows[step.left.places(first)], first)
            assert np.array_equal(right.rows[right.places(second)], second)
            seen.append(step.pairs)
        assert np.array_equal(np.sort(np.concatenate(seen)), todo)


def test_too_little_memory_is_told_with_what_is_needed():
    with pytest.raises(UsageError, match="MB at least") as caught:
        room_for(LEAST - 1, 2 * 1152, 256)
    assert str(caught.value).startswith("memory is too small")
    room = room_for(LEAST, 2 * 1152, 256)
    assert room.rows >= 512


@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.9, 1.0])
def test_products_cover_each_cell_once(mirrored, share):
    random = np.random.default_rng(0)
    rows, columns = np.indices((11, 11)).reshape(2, -1)
    chosen = (random.random(121) < share) & ((not mirrored) | (columns >= rows))
    places = np.stack([rows[chosen], columns[chosen]], axis=1)
    products = list(cover(places, 4, mirrored=mirrored))
    assert sorted(cell for product in products for cell in product.cells) == list(
        range(len(places))
    )
    for product in products:
        across = product.across or product.top
        assert mirrored or product.across is not None
        for row, column in places[product.cells]:
            assert product.top.start <= row < product.top.stop
            assert across.start <= column < across.stop
        assert product.top.stop - product.top.start <= 4
        assert across.stop - across.start <= 4
    if share == 1.0:
        assert len(products) == (6 if mirrored else 9)
        # those on the diagonal compute one half and mirror it
        assert sum(product.across is None for product in products) == (3 if mirrored else 0)
