"""Candidate blocks and windows: every pair in one of them, and no more rows than there is room."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpipstore.pipeline.search import blocks
from lpipstore.pipeline.search.blocks import split, windows

PAIRS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=200).map(
    lambda pairs: np.array(pairs, np.int64).reshape(-1, 2)
)


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", 8)
        yield


@given(PAIRS, st.integers(1, 16), st.integers(1, 64))
def test_each_pair_is_in_one_block_or_alone(pairs, side, share):
    dense, sparse = split(pairs, side, share)
    assert sorted(np.concatenate([*dense, sparse]).tolist()) == list(range(len(pairs)))
    cells = [tuple(cell) for cell in (pairs // side).tolist()]
    full = []
    for which in dense:
        (cell,) = {cells[pair] for pair in which}
        full.append(cell)
        assert len(which) == cells.count(cell) > 8**2 / share
    assert len(set(full)) == len(full)
    alone = [cells[pair] for pair in sparse]
    assert alone == sorted(alone)
    assert all(cells.count(cell) <= 8**2 / share for cell in set(alone))


@given(PAIRS, st.integers(2, 50), st.randoms(use_true_random=False))
def test_windows_hold_each_pair_once_and_keep_to_the_room(pairs, room, random):
    which = np.array(random.sample(range(len(pairs)), len(pairs)), np.int64)
    found = list(windows(pairs, which, room))
    assert np.array_equal(np.concatenate([*found, which[:0]]), which)  # and in their order
    for number, window in enumerate(found):
        assert len(window)
        assert len(np.unique(pairs[window])) <= room
        if number + 1 < len(found) and len(window) < room * blocks._AHEAD:
            following = np.append(window, found[number + 1][0])
            assert len(np.unique(pairs[following])) > room  # windows end when they are full
