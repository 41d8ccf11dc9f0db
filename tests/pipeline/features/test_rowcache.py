"""Rows on demand: always those asked for, never more at a time than there is room."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lpipstore.pipeline.features.rowcache import RowCache, SingleRows

CPU = torch.device("cpu")
LENGTH = 3


class Source:
    """Rows that follow from their numbers; counts what is read."""

    def __init__(self, count):
        self.rows = np.arange(count * LENGTH, dtype=np.float32).reshape(count, LENGTH)
        self.reads = []

    def read(self, numbers):
        self.reads += numbers.tolist()
        return self.rows[numbers]

    def read_into(self, numbers, out):
        out[:] = self.read(numbers)


def requests(count):
    numbers = st.lists(st.integers(0, count - 1), min_size=1, max_size=8)
    return st.lists(st.tuples(st.sampled_from(["block", "take", "pick", "few"]), numbers))


@given(st.integers(1, 20), st.integers(1, 6), st.integers(1, 30), st.booleans(), st.data())
def test_blocks_hold_the_rows_asked_for(count, block, room, whole, data):
    source = Source(count)
    cache = RowCache(source.read, count, block, room, CPU, whole=whole)
    for kind, drawn in data.draw(requests(count)):
        numbers = np.array(drawn, np.int64)
        if kind == "block":
            number = int(numbers[0]) // block
            found, expected = cache.block(number), source.rows[number * block :][:block]
        elif kind == "take":
            found, expected = cache.take(numbers), source.rows[numbers]
        else:
            pairs = np.stack([numbers, numbers[::-1]], axis=1)
            rows, places = cache.pick(pairs, few=kind == "few")
            found, expected = rows[places], source.rows[pairs]
        assert np.array_equal(found.numpy(), expected)
        held = sum(len(rows) for rows in cache._blocks.values())
        held += 0 if cache._whole is None else len(cache._whole)
        assert held <= max(room, 2 * block)
    if whole and max(2, room // block) * block >= count and cache._whole is not None:
        before = len(source.reads)
        cache.take(np.arange(count))
        assert len(source.reads) == before  # all rows are held, nothing is read again


@given(st.integers(1, 20), st.integers(2, 12), st.data())
def test_single_rows_are_those_asked_for_and_stay_while_there_is_room(count, room, data):
    source = Source(count)
    cache = SingleRows(source.read_into, count, room, LENGTH, "float32", CPU)
    ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    most = max(1, room // 2)  # pairs that need no more rows than there is room
    seen = set()
    for drawn in data.draw(st.lists(st.lists(ends, min_size=1, max_size=most), max_size=8)):
        pairs = np.array(drawn, np.int64)
        rows, places = cache.pick(pairs)
        assert np.array_equal(rows[places].numpy(), source.rows[pairs])
        assert len(rows) <= room
        seen |= set(pairs.ravel().tolist())
        if len(seen) <= min(room, count):
            assert len(source.reads) == len(seen)  # each once
