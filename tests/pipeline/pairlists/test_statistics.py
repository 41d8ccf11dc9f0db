"""Statistics of pairs: the distances of any head without a row."""

import numpy as np
import pytest
import zarr

from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.pipeline.distances.heads import make_head
from lpipstore.pipeline.pairlists.plan import plan_list
from lpipstore.pipeline.pairlists.schedule import room_for
from lpipstore.pipeline.pairlists.statistics import distances_of_statistics, keep_statistics

LEAST = 2 * 256 * (2 * 1152 + 4 * 4096) + 256**2 * 24


@pytest.fixture
def kept(shelve, tmp_path):
    """A function that keeps the statistics of 3,000 pairs in a folder and returns the plan."""
    shelf = shelve(700)
    pairs = np.random.default_rng(0).integers(0, 700, (3000, 2))
    plan = plan_list(*pairs.T, shelf.keys, shelf.row_bytes)

    def keep(name, memory=10**9):
        (tmp_path / name).mkdir(exist_ok=True)
        room = room_for(memory, shelf.row_bytes, plan.block)
        keep_statistics(shelf.features, shelf.contents, plan, room, tmp_path / name, {"of": "them"})
        return shelf, plan, tmp_path / name / "statistics.zarr"

    return keep


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_other_heads_need_no_rows(kept, monkeypatch):
    shelf, plan, folder = kept("run")
    reads = shelf.count_reads(monkeypatch)
    assert zarr.open_array(folder, mode="r").shape == (len(plan.pairs), 56)
    random = np.random.default_rng(1)
    heads = [make_head([random.random(n) + sign for n in (24, 32)], "one") for sign in (0.0, -0.5)]
    found = distances_of_statistics(folder.parent, heads)
    assert found.dtype == np.float32
    for head, distances in zip(heads, found, strict=True):
        shelf.head = head
        expected = shelf.exact(*plan.rows[plan.pairs].T)
        assert np.abs(distances - expected).max() < 1e-6
    assert not any(reads.values())


def test_memory_and_interruption_do_not_change_a_byte(kept):
    *_, one = kept("one")
    *_, two = kept("two", LEAST)
    assert bytes_of(one) == bytes_of(two)
    before = bytes_of(one)
    (two / "c" / "3" / "0").unlink()
    (two / "c" / "5" / "0").write_bytes(b"short")  # what a loss of power can leave
    kept("two")
    assert bytes_of(two) == before


def test_what_is_there_is_not_computed_again(kept, monkeypatch):
    shelf, *_ = kept("run")
    reads = shelf.count_reads(monkeypatch)
    kept("run")
    assert not any(reads.values())


def test_statistics_that_are_damaged_or_absent_are_told(kept, tmp_path):
    shelf, _, folder = kept("run")
    with pytest.raises(UsageError, match="statistics=True"):
        distances_of_statistics(tmp_path, [shelf.head])
    other = make_head([np.ones(24), np.ones(31)], "another backbone's")
    with pytest.raises(UsageError, match="56 channels, and the head has 55"):
        distances_of_statistics(folder.parent, [other])
    (folder / "c" / "3" / "0").unlink()
    with pytest.raises(LpipstoreError, match="lacks a part"):
        distances_of_statistics(folder.parent, [shelf.head])
