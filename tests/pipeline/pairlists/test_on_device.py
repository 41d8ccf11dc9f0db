"""Scoring a list on a device with memory of its own: the same bytes, and the copies planned."""

import numpy as np
import pytest

from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.pipeline.common.device import installed, rows_at_once
from lpipstore.pipeline.pairlists.plan import plan_list
from lpipstore.pipeline.pairlists.schedule import loads, room_for, room_on_device
from lpipstore.pipeline.pairlists.score import InMemory, score_list
from lpipstore.pipeline.pairlists.statistics import make_statistics

from ...emulated import PLENTY, Emulated, fail_products, least

COUNT = 200
pytestmark = pytest.mark.usefixtures("small_tiles")


@pytest.fixture
def shelf(shelve):
    return shelve(COUNT)


@pytest.fixture
def plan(shelf):
    """Products and single pairs, in blocks of 16 rows."""
    random = np.random.default_rng(7)
    crowd, others = random.integers(0, 60, (900, 2)), random.integers(0, COUNT, (500, 2))
    return plan_list(*np.concatenate([crowd, others]).T, shelf.keys, shelf.row_bytes)


def score(shelf, plan, memory=PLENTY, values=None):
    kept = InMemory(np.full(len(plan.pairs), np.nan, np.float32) if values is None else values)
    room = room_for(memory, shelf.row_bytes, plan.block)
    score_list(shelf.features, shelf.contents, shelf.weights, plan, room, kept)
    return kept.values.tobytes()


def room_of(shelf, plan, rows=0):
    """The least memory of a device, and room for some more rows with their panels."""
    smallest = least(lambda memory: room_on_device(memory, shelf.row_bytes, plan.block))
    return smallest + rows * (shelf.row_bytes + 4 * 4096)


@pytest.mark.parametrize("rows", [0, 16, 50, 100, 10_000])
@pytest.mark.parametrize("host", ["least", "plenty"])
def test_bytes_are_the_same_and_uploads_are_those_planned(shelf, kernel, plan, rows, host):
    smallest = least(lambda memory: room_for(memory, shelf.row_bytes, plan.block))
    memory = {"least": smallest, "plenty": PLENTY}[host]
    expected = score(shelf, plan)
    shelf.features.device_memory = room_of(shelf, plan, rows)
    with installed(Emulated(memory=shelf.features.device_memory)) as device:
        assert score(shelf, plan, memory) == expected
    room = room_on_device(shelf.features.device_memory, shelf.row_bytes, plan.block)
    share = rows_at_once(room_for(memory, shelf.row_bytes, plan.block).rows, shelf.row_bytes)
    planned = [
        min(share, len(rows.rows) - start) * shelf.row_bytes
        for rows in loads(plan, np.arange(len(plan.pairs)), room)
        for start in range(0, len(rows.rows), share)
    ]
    assert device.uploads[1:] == planned  # behind the rows of the centre
    assert device.most <= room.rows * shelf.row_bytes
    if rows >= COUNT:
        assert sum(planned) == len(plan.rows) * shelf.row_bytes


@pytest.mark.parametrize("number", [0, 2, 5])
@pytest.mark.parametrize("place", ["upload", "product", "download"])
def test_out_of_memory_at_any_step_goes_on_with_less(shelf, plan, monkeypatch, place, number):
    expected = score(shelf, plan)
    shelf.features.device_memory = room_of(shelf, plan, 70)
    device = Emulated(memory=shelf.features.device_memory)
    if place == "product":
        fail_products(monkeypatch, {number})
    else:
        (device.fails if place == "upload" else device.fails_down).add(number)
    held = []
    forget = device.forget
    monkeypatch.setattr(device, "forget", lambda: (held.append(device.held()), forget()))
    with installed(device):
        assert score(shelf, plan) == expected
    assert held == [0]  # everything was let go, once


def test_what_is_known_stays_when_memory_runs_out(shelf, plan):
    values = np.full(len(plan.pairs), np.nan, np.float32)
    values[::3] = 9  # a distance that no pair has
    with installed(Emulated(memory=PLENTY, fails_down={3})):
        score(shelf, plan, values=values)
    assert np.array_equal(np.flatnonzero(values == 9), np.arange(len(plan.pairs))[::3])


def test_a_device_that_is_too_small_is_told(shelf, plan, monkeypatch):
    shelf.features.device_memory = 1000
    with installed(Emulated()), pytest.raises(UsageError, match=r"^device_memory is too small"):
        score(shelf, plan)
    shelf.features.device_memory = PLENTY
    fail_products(monkeypatch, range(1000))
    with installed(Emulated()), pytest.raises(LpipstoreError, match="ran out of memory, even"):
        score(shelf, plan)


@pytest.mark.parametrize("rows", [0, 60])
def test_statistics_of_pairs_keep_to_the_memory_of_the_device(shelf, plan, rows):
    room, chunks = room_for(PLENTY, shelf.row_bytes, plan.block), range(-(-len(plan.pairs) // 16))

    def statistics():
        made = make_statistics(shelf.features, shelf.contents, plan, room, chunks)
        return [(part, numbers.tobytes()) for part, numbers in made]

    expected = statistics()
    shelf.features.device_memory = room_of(shelf, plan, rows)
    with installed(Emulated(memory=shelf.features.device_memory)) as device:
        assert statistics() == expected
    assert device.most <= shelf.features.device_memory
