"""Searching on a device with memory of its own: the same pairs, and few copies."""

from dataclasses import replace

import numpy as np
import pytest

from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.pipeline.common.device import installed
from lpipstore.pipeline.common.progress import silent
from lpipstore.pipeline.features.pooled import PooledRows
from lpipstore.pipeline.matrix.plan import plan_matrix
from lpipstore.pipeline.matrix.score import score_matrix
from lpipstore.pipeline.search.cascade import Tally
from lpipstore.pipeline.search.room import SearchRoom
from lpipstore.pipeline.search.search import Search
from lpipstore.pipeline.search.topk import Neighbours
from lpipstore.workflows.scoring.in_memory import MatrixInMemory

from ...emulated import PLENTY, Emulated, fail_products, least

COUNT = 300
NEAR = 40  # of which are nearly equal


@pytest.fixture
def shelf(shelve):
    shelf = shelve(COUNT)
    near = np.random.default_rng(1).integers(-20, 20, (NEAR, shelf.rows.shape[1]))
    shelf.rows[100 : 100 + NEAR] = np.clip(shelf.rows[100].astype(int) + near, 0, 65535)
    shelf.features.store.clear()
    shelf.features.store.put_many(shelf.features.extractor.spec, shelf.keys, shelf.rows)
    return shelf


def search_in(shelf, first=None, *, revisit=False, memory=PLENTY):
    pooled = PooledRows(shelf.features, (1, 2))
    pooled.ensure(shelf.contents)
    return Search(
        shelf.features, pooled, shelf.contents, shelf.weights, memory, revisit=revisit, first=first
    )


def close(shelf, first=None):
    """Close pairs by bounds and then, if there is memory for it, by the matrix."""
    search, below, tally = search_in(shelf, first), 1e-4, Tally()
    found = search.try_below(0, below, tally)
    decided = found
    if search._matrix_fits():
        tiles = search.candidates(0, below, lambda *_: None)
        search.below_by_matrix(0, below, tiles, silent)
        decided, _ = search.decide(0, tiles.pairs(), below)
    assert len(found.i) >= NEAR
    return [part.tobytes() for part in (*found, *decided)]


def nearest(shelf, first=None):
    search = search_in(shelf, first, revisit=True)
    found = Neighbours(search.sides.searched, 3)
    for step in range(search.steps):
        search.nearest(step, found, np.inf)
    tiled = found
    if search._matrix_fits():
        tiled = Neighbours(search.sides.searched, 3)
        search.by_matrix(tiled, set(), lambda: None, silent)
    return found.codes.tobytes(), tiled.codes.tobytes()


def room_of(shelf, rows):
    """The least memory of a device for a search, and room for some more rows."""

    def plan(memory):
        with installed(Emulated()):
            SearchRoom(replace(shelf.features, device_memory=memory), PLENTY)

    return least(plan) + rows * shelf.row_bytes * 4 // 3


@pytest.mark.parametrize(("first", "rows"), [(None, 250), (110, 250), (None, COUNT * 60)])
@pytest.mark.parametrize("search", [close, nearest])
def test_a_search_finds_the_same(shelf, search, first, rows):
    expected = search(shelf, first)
    shelf.features.device_memory = room_of(shelf, rows)
    with installed(Emulated(memory=shelf.features.device_memory)) as device:
        assert search(shelf, first) == expected
    assert device.most <= shelf.features.device_memory
    assert device.forgotten == 0


def test_bounds_find_what_the_matrix_of_the_kernel_has(shelf, kernel):
    plan = plan_matrix(COUNT, shelf.row_bytes, PLENTY)
    tiles = MatrixInMemory(COUNT, plan.tile)
    score_matrix(shelf.features, shelf.contents, None, shelf.weights, plan, tiles)
    upper = tiles.array[np.triu_indices(COUNT, 1)]
    for below in (1e-4, float(np.sort(upper)[2000:2002].mean())):
        found = search_in(shelf).try_below(0, below, Tally())
        i, j = np.nonzero(np.triu(tiles.array < below, 1))
        assert sorted(zip(found.i, found.j, strict=True)) == sorted(zip(i, j, strict=True))
        assert np.abs(tiles.array[found.i, found.j] - found.distance).max() <= 1e-6
    (codes, tiled) = nearest(shelf)
    assert codes == tiled


def test_rows_and_bounds_that_fit_are_uploaded_once(shelf):
    search = search_in(shelf, revisit=True)
    with installed(Emulated(memory=PLENTY)) as device:
        search = search_in(shelf, revisit=True)
        found = Neighbours(COUNT, 3)
        for step in range(search.steps):
            search.nearest(step, found, np.inf)
        bounds = sum(4 * (stage.width + 1) for stage, _ in search._cascade._stages)
    centre = 16
    assert sum(device.uploads) <= (COUNT + centre) * shelf.row_bytes + COUNT * bounds


@pytest.mark.parametrize(("place", "number"), [("upload", 3), ("product", 0)])
@pytest.mark.parametrize("search", [close, nearest])
def test_out_of_memory_at_any_step_goes_on_with_less(shelf, monkeypatch, search, place, number):
    expected = search(shelf)
    device = Emulated(memory=PLENTY)
    if place == "product":
        fail_products(monkeypatch, {number})
    else:
        device.fails = {number}
    held = []
    forget = device.forget
    monkeypatch.setattr(device, "forget", lambda: (held.append(device.held()), forget()))
    with installed(device):
        assert search(shelf) == expected
    assert held == [0]  # everything was let go, once


def test_a_device_that_is_too_small_is_told(shelf, monkeypatch):
    shelf.features.device_memory = 1000
    with installed(Emulated()), pytest.raises(UsageError, match=r"^device_memory is too small"):
        search_in(shelf)
    shelf.features.device_memory = room_of(shelf, 100)
    with (
        installed(Emulated(fails=set(range(1, 1000)))),
        pytest.raises(LpipstoreError, match="ran out of memory, even"),
    ):
        close(shelf)
