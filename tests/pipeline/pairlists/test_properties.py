"""What holds of every plan and schedule of a list, whatever its pairs and the memory."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lpipstore.pipeline.pairlists.plan import SAME, UNUSABLE, plan_list
from lpipstore.pipeline.pairlists.schedule import room_for, steps
from lpipstore.workflows.session.estimate import list_work

ROW_BYTES = 20_000_000  # so long that blocks have 16 rows
BLOCK = 16
LEAST = 2 * BLOCK * (ROW_BYTES + 4 * 4096) + BLOCK**2 * 24  # bytes: two blocks and their product


@st.composite
def lists(draw):
    """Keys of some images, and pairs of them: some unusable, some of equal images, some twice."""
    count = draw(st.integers(1, 90))
    names = draw(st.permutations(range(count)))
    reach = draw(st.integers(1, count))  # pairs of neighbours, or of anyone
    first = st.integers(-1, count - 1)
    step = st.integers(-reach, reach)
    ends = draw(st.lists(st.tuples(first, step), max_size=300))
    pairs = [(i, min(max(i + more, -1), count - 1)) for i, more in ends]
    if draw(st.booleans()):  # a block of all its pairs, which is a product
        crowd = min(count, 20)
        pairs += [(i, j) for i in range(crowd) for j in range(i)]
    return [b"%016d" % name for name in names], np.array(pairs, np.int64).reshape(-1, 2)


def plan_of(keys, pairs):
    plan = plan_list(pairs[:, 0], pairs[:, 1], keys, ROW_BYTES)
    assert plan.block == BLOCK
    return plan


@given(lists())
def test_each_pair_of_the_list_has_one_place(drawn):
    keys, pairs = drawn
    plan = plan_of(keys, pairs)
    planned = [frozenset(plan.rows[pair].tolist()) for pair in plan.pairs]
    assert len(set(planned)) == len(planned)
    wanted = {frozenset(pair) for pair in pairs.tolist() if min(pair) >= 0 and pair[0] != pair[1]}
    assert set(planned) == wanted
    for (left, right), place in zip(pairs.tolist(), plan.place.tolist(), strict=True):
        if min(left, right) < 0:
            assert place == UNUSABLE
        elif left == right:
            assert place == SAME
        else:
            assert planned[place] == {left, right}
    assert sorted(plan.rows.tolist()) == sorted(set().union(*wanted))
    assert np.array_equal(plan.cells[plan.cell_of], plan.pairs // plan.block)


@given(lists(), st.randoms(use_true_random=False))
def test_order_direction_and_numbering_change_no_plan(drawn, random):
    keys, pairs = drawn
    one = plan_of(keys, pairs)
    order = random.sample(range(len(pairs)), len(pairs))
    number = np.array([*random.sample(range(len(keys)), len(keys)), -1])  # the last one: unusable
    renamed = [b""] * len(keys)
    for old, new in enumerate(number[:-1]):
        renamed[new] = keys[old]
    two = plan_of(renamed, number[pairs[order]][:, ::-1])
    assert np.array_equal(number[one.rows], two.rows)
    for name in ("pairs", "cells", "cell_of", "dense"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert np.array_equal(one.place[order], two.place)


@given(lists(), st.integers(LEAST, 6 * LEAST), st.integers(1, 3))
def test_steps_score_each_pair_once_with_its_rows_in_memory(drawn, memory, every):
    plan = plan_of(*drawn)
    room = room_for(memory, ROW_BYTES, BLOCK)
    product = room.blocks * BLOCK
    assert room.rows * (ROW_BYTES + 4 * 4096) + product**2 * 24 <= memory
    todo = np.arange(len(plan.pairs))[::every]
    scored, read, left, finished = [], 0, None, []
    for step in steps(plan, todo, room):
        right = step.left if step.right is None else step.right
        held = [step.left] if step.right is None else [step.left, step.right]
        assert sum(len(rows.rows) for rows in held) <= room.rows
        for rows, ends in zip((step.left, right), plan.pairs[step.pairs].T, strict=True):
            assert np.array_equal(rows.rows[rows.places(ends)], ends)
        for rows in held:
            assert len(np.unique(rows.rows)) == len(rows.rows)
            assert set(rows.rows[: rows.whole] // plan.block) == set(rows.blocks)
        if step.left is not left:
            assert not any(step.left is one for one in finished)
            finished.append(left := step.left)
            read += len(left.rows)
        read += 0 if step.right is None else len(step.right.rows)
        scored.append(step.pairs)
    assert np.array_equal(np.sort(np.concatenate([todo[:0], *scored])), todo)
    assert list_work(plan, todo, room, 1).rows_read == read  # what is foretold before the run


@given(lists())
def test_products_find_whole_blocks_in_memory(drawn):
    plan = plan_of(*drawn)
    todo = np.arange(len(plan.pairs))
    for step in steps(plan, todo, room_for(LEAST, ROW_BYTES, BLOCK)):
        right = step.left if step.right is None else step.right
        cells = np.unique(plan.cell_of[step.pairs])
        for one, other in plan.cells[cells[plan.dense[cells]]]:
            assert one in step.left.blocks
            assert other in right.blocks
