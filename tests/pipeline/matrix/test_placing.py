"""Scoring a matrix on a device with memory of its own: the same bytes, and the copies planned."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.pipeline.common.device import installed
from lpipstore.pipeline.matrix import placing as placing_module
from lpipstore.pipeline.matrix.placing import Placing, placed_here, placed_on_device
from lpipstore.pipeline.matrix.plan import MatrixPlan, plan_matrix
from lpipstore.pipeline.matrix.score import score_matrix

from ...emulated import PLENTY, Emulated, fail_products, least

COUNT = 200


class Tiles:
    """Keeps the tiles of a matrix in memory, and refuses to get one twice."""

    def __init__(self, plan):
        self.plan, self.there = plan, {}

    def done(self, row, column):
        return (row, column) in self.there

    def write(self, row, column, distances):
        assert (row, column) not in self.there
        self.there[row, column] = distances.copy()

    def tobytes(self):
        assert sorted(self.there) == sorted(self.plan.tiles())
        return b"".join(self.there[tile].tobytes() for tile in self.plan.tiles())


def sides_of(shelf, columns):
    """Contents down and across: all pairs, or all but the last `columns` with those."""
    if columns is None:
        return shelf.contents, None
    return shelf.contents[:-columns], shelf.contents[-columns:]


def score(shelf, memory, columns=None, tiles=None):
    down, across = sides_of(shelf, columns)
    plan = plan_matrix(len(down), shelf.row_bytes, memory, columns=columns)
    tiles = tiles or Tiles(plan)
    score_matrix(shelf.features, down, across, shelf.weights, plan, tiles)
    return tiles.tobytes()


plans = st.builds(
    MatrixPlan,
    rows=st.integers(1, 40),
    columns=st.none() | st.integers(1, 40),
    tile=st.just(4),
    block=st.just(2),
    slab=st.sampled_from([8, 16, 60]),
    piece=st.sampled_from([4, 60]),
    ahead=st.booleans(),
)
placings = st.builds(
    lambda plan, part, at_once, ahead: Placing(plan, min(part, plan.slab), at_once, ahead, 0),
    plans,
    st.sampled_from([4, 8, 12, 60]),
    st.integers(1, 20),
    st.booleans(),
)


@given(placings, st.data())
def test_every_tile_is_scored_once_and_most_steps_upload_one_part(placing, data):
    tiles = placing.plan.tiles()
    todo = data.draw(st.just(set(tiles)) | st.sets(st.sampled_from(tiles)))
    seen, held, uploads = [], (), []
    for step, inner in placing.steps(todo):
        assert step.down.start <= inner.down.start < inner.down.stop <= step.down.stop
        assert step.across.start <= inner.across.start < inner.across.stop <= step.across.stop
        for top, left in placing.plan.pieces(inner):
            seen += set(placing.plan.tiles_in(top, left)) & todo
        needed = inner.down, inner.across
        uploads += [part for part in dict.fromkeys(needed) if part not in held]
        held = needed
    assert sorted(seen) == sorted(todo)
    sent = list(placing.uploads(todo))
    assert sum(len(part.cut(placing.at_once)) for part in uploads) == len(sent)
    assert all(share.stop - share.start <= placing.at_once for share in sent)


@pytest.mark.parametrize("columns", [None, 23])
def test_walking_to_and_fro_spares_uploads(columns):
    plan = MatrixPlan(48, columns, 4, 2, 24, 24, False)
    placing = Placing(plan, 4, 4, False, 0)
    parts = list(placing.uploads(set(plan.tiles())))
    steps = list(placing.steps(set(plan.tiles())))
    groups = len({id(step) for step, _ in steps})
    assert len(parts) <= len(steps) + groups  # one each, and one more as slabs change


@pytest.mark.parametrize("columns", [None, 70])
@pytest.mark.parametrize("host", ["some", "plenty"])
@pytest.mark.parametrize("on_device", ["least", "some", "plenty"])
def test_bytes_are_the_same_and_uploads_are_those_planned(
    shelve, small_tiles, kernel, columns, host, on_device
):
    shelf = shelve(COUNT)
    down, _ = sides_of(shelf, columns)

    def here(memory):
        return plan_matrix(len(down), shelf.row_bytes, memory, columns=columns)

    smallest = least(here)
    memory = {"some": smallest + 100 * shelf.row_bytes, "plenty": PLENTY}[host]
    plan = here(memory)
    smallest = least(lambda room: placed_on_device(plan, shelf.row_bytes, room))
    some = smallest + 60 * shelf.row_bytes
    room = {"least": smallest, "some": some, "plenty": PLENTY}[on_device]
    expected = score(shelf, PLENTY, columns)
    placing = placed_on_device(plan, shelf.row_bytes, room)
    plan = placing.plan
    planned = placing.uploads(set(plan.tiles()))
    shelf.features.device_memory = room
    with installed(Emulated(memory=room)) as device:
        assert score(shelf, memory, columns) == expected
    uploads = device.uploads[1:]  # behind the rows of the centre
    assert uploads == [shelf.row_bytes * (share.stop - share.start) for share in planned]
    assert device.most <= room
    steps = placing.steps(set(plan.tiles()))
    assert len(device.downloads) == sum(len(list(plan.pieces(inner))) for _, inner in steps)
    assert device.forgotten == 0


def test_a_device_with_room_for_all_gets_each_row_once(shelve, small_tiles):
    shelf = shelve(COUNT)
    with installed(Emulated(memory=PLENTY)) as device:  # of which it takes its share by itself
        score(shelf, least(lambda memory: plan_matrix(COUNT, shelf.row_bytes, memory)))
    assert sum(device.uploads[1:]) == COUNT * shelf.row_bytes
    assert len(device.uploads) > 10  # in shares that this machine has memory for


@pytest.mark.parametrize("row_bytes", [60_000, 12_200_000])
@pytest.mark.parametrize("room", [6 * 10**9, 64 * 10**9])
def test_pieces_are_as_large_as_memory_allows_and_bits_are_decided_elsewhere(row_bytes, room):
    plan = plan_matrix(20_000, row_bytes, 4 * 10**9)
    placing = placed_on_device(plan, row_bytes, room)
    assert (placing.plan.tile, placing.plan.block) == (plan.tile, plan.block)
    assert placing.plan.piece >= plan.piece
    assert placing.need <= room
    assert placed_here(plan, row_bytes).plan == plan


@pytest.mark.parametrize("number", [0, 3, 15])
@pytest.mark.parametrize("place", ["upload", "product", "download"])
@pytest.mark.parametrize("columns", [None, 70])
def test_out_of_memory_at_any_step_goes_on_with_less(
    shelve, small_tiles, monkeypatch, columns, place, number
):
    shelf = shelve(COUNT)
    expected = score(shelf, PLENTY, columns)
    down, _ = sides_of(shelf, columns)
    plan = plan_matrix(len(down), shelf.row_bytes, PLENTY, columns=columns)
    smallest = least(lambda room: placed_on_device(plan, shelf.row_bytes, room))
    room = smallest + 40 * shelf.row_bytes
    device = Emulated(memory=room)
    shelf.features.device_memory = room
    if place == "product":
        fail_products(monkeypatch, {number})
    else:
        (device.fails if place == "upload" else device.fails_down).add(number)
    held = []
    forget = device.forget
    monkeypatch.setattr(device, "forget", lambda: (held.append(device.held()), forget()))
    with installed(device):
        assert score(shelf, PLENTY, columns) == expected
    assert device.forgotten == 1
    assert held == [0]  # everything was let go
    assert device.most <= room


def test_memory_that_runs_out_again_and_again_is_halved_until_it_fits(shelve, small_tiles):
    shelf = shelve(COUNT)
    shelf.features.device_memory = PLENTY
    expected = score(shelf, PLENTY)
    with installed(Emulated(fails={1, 3})) as device:  # after the rows of the centre, each time
        assert score(shelf, PLENTY) == expected
    assert device.forgotten == 2


def test_a_device_that_holds_not_even_the_smallest_parts_says_so(shelve, small_tiles, monkeypatch):
    shelf = shelve(COUNT)
    plan = plan_matrix(COUNT, shelf.row_bytes, PLENTY)
    tiles = Tiles(plan)
    fail_products(monkeypatch, range(1000))
    with (
        installed(Emulated(memory=PLENTY)),
        pytest.raises(LpipstoreError, match=r"^cpu ran out of memory, even with .* stays$"),
    ):
        score(shelf, 50_000_000, tiles=tiles)
    assert not tiles.there


def test_too_little_memory_of_the_device_is_told_with_its_setting(shelve):
    shelf = shelve(COUNT)
    shelf.features.device_memory = 1000
    with (
        installed(Emulated()),
        pytest.raises(UsageError, match=r"^device_memory is too small for rows of .* at least$"),
    ):
        score(shelf, PLENTY)


def test_results_on_their_way_fit_in_what_is_left_for_arithmetic():
    plan = plan_matrix(50_000, 60_000, 4 * 10**9)
    placing = placed_on_device(plan, 60_000, 64 * 10**9)
    results = placing_module.RESULTS + 1
    assert placing.plan.piece == 4096
    assert results * 4 * placing.plan.piece**2 + plan.rows * 60_000 <= 4 * 10**9
