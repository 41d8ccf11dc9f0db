"""Statistics of judged pairs: made once from rows, then read from the store."""

import numpy as np
import torch

from lpipstore.pipeline.distances.distances import pair_statistics
from lpipstore.pipeline.judgements.pair_features import (
    fill_statistics,
    kept_statistics,
    number_pairs,
)


def test_numbers_of_pairs_do_not_depend_on_direction():
    left, right = np.array([3, 1, 3, 2]), np.array([1, 3, 2, 2])
    pairs, place = number_pairs(left, right)
    assert pairs.tolist() == [[1, 3], [2, 2], [2, 3]]
    assert place.tolist() == [0, 0, 2, 1]


def test_statistics_are_made_once_and_kept(shelve, monkeypatch):
    shelf = shelve(30)
    random = np.random.default_rng(0)
    pairs, _ = number_pairs(*random.integers(0, 30, (2, 100)))
    reads = shelf.count_reads(monkeypatch)
    numbers, known = kept_statistics(shelf.features, shelf.contents, pairs)
    same = pairs[:, 0] == pairs[:, 1]
    assert known.tolist() == same.tolist()
    lacking = np.flatnonzero(~known)
    fill_statistics(shelf.features, shelf.contents, pairs, numbers, lacking, 10**8)
    assert max(reads.values()) == 1
    layout = shelf.features.extractor.layout
    left, right = (torch.from_numpy(shelf.rows[side]) for side in pairs.T)
    expected = pair_statistics(left, right, layout, "uint16").numpy()
    assert np.abs(numbers - expected).max() < 1e-7
    # direction and other pairs make no difference, and rows are not needed any more
    again, known = kept_statistics(shelf.features, shelf.contents, pairs[::-1, ::-1])
    assert known.all()
    assert np.array_equal(again, numbers[::-1])
    assert max(reads.values()) == 1


def test_the_distance_is_the_dot_product(shelve):
    shelf = shelve(12)
    pairs = np.array([[0, 1], [2, 7], [3, 3]])
    numbers, known = kept_statistics(shelf.features, shelf.contents, pairs)
    lacking = np.flatnonzero(~known)
    fill_statistics(shelf.features, shelf.contents, pairs, numbers, lacking, 10**8)
    distances = numbers.astype(np.float64) @ np.concatenate(shelf.head.weights)
    assert np.allclose(distances, shelf.exact(*pairs.T), rtol=1e-5, atol=1e-12)
    assert distances[2] == 0


def test_a_store_without_room_loses_nothing_but_time(shelve, monkeypatch):
    shelf = shelve(12)
    monkeypatch.setattr(shelf.features.store, "put_many", lambda *_: 0)
    pairs = np.array([[0, 1], [2, 7]])
    numbers, known = kept_statistics(shelf.features, shelf.contents, pairs)
    fill_statistics(shelf.features, shelf.contents, pairs, numbers, np.arange(2), 10**8)
    assert np.isfinite(numbers).all()
    assert not known.any()
    assert "reached its limit" in shelf.features.full
