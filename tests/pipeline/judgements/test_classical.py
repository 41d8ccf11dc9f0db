"""Metrics on pixels: images loaded once for all of them, whatever fits, and no more than fits."""

import numpy as np
import pytest
import torch

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.common.progress import Stopwatch
from lpipstore.pipeline.judgements.classical import (
    CLASSICAL,
    classical_distances,
    distances_of_pairs,
)

SIZE = (12, 16)
IMAGE_BYTES = 3 * SIZE[0] * SIZE[1]
ROW = IMAGE_BYTES + 4 * 4096  # what an image counts for, panels included


class Album:
    """Random images, with a count of how often each was loaded and of how many stood together."""

    def __init__(self, count: int) -> None:
        random = np.random.default_rng(count)
        self.images = torch.from_numpy(random.integers(0, 256, (count, *SIZE, 3), np.uint8))
        self.keys = [random.bytes(16) for _ in range(count)]
        self.loads = np.zeros(count, int)
        self.most = 0

    def load(self, numbers):
        self.loads[numbers] += 1
        self.most = max(self.most, len(numbers))
        return self.images[torch.from_numpy(numbers)]

    def distances(self, pairs, names=tuple(CLASSICAL), memory=1 << 30):
        clock = Stopwatch("score")
        return distances_of_pairs(names, pairs, self.keys, SIZE, self.load, memory, clock=clock)


def drawn(album: Album, count: int) -> np.ndarray:
    ends = np.random.default_rng(0).integers(0, len(album.keys), (count, 2))
    return np.unique(np.sort(ends, axis=1), axis=0)


def test_each_image_is_loaded_once_for_all_metrics():
    album = Album(40)
    pairs = drawn(album, 300)
    found = album.distances(pairs)
    assert album.loads.tolist() == [1] * 40
    for name in CLASSICAL:
        left, right = (album.images[side] for side in pairs.T)
        expected = classical_distances(name, left, right).double().numpy()
        finite = np.isfinite(expected)
        assert np.array_equal(finite, pairs[:, 0] != pairs[:, 1]) or name != "PSNR"
        assert np.allclose(found[name][finite], expected[finite], atol=2e-6, rtol=1e-6), name
        assert np.array_equal(found[name][~finite], expected[~finite])


def test_the_work_grows_as_the_judgements_do(monkeypatch):
    batches = []
    metric = CLASSICAL["L2"]
    monkeypatch.setattr(
        "lpipstore.pipeline.judgements.classical.CLASSICAL",
        {"L2": lambda *sides: (batches.append(len(sides[0])), metric(*sides))[1]},
    )
    work = {}
    for count in (2_000, 8_000):
        album = Album(count)  # as in BAPPS: every judgement has images of its own
        pairs = np.stack([np.arange(0, count, 2), np.arange(1, count, 2)], axis=1)
        batches.clear()
        album.distances(pairs, names=("L2",))
        assert album.loads.tolist() == [1] * count
        work[count] = sum(batches)
    assert work[8_000] <= 4.1 * work[2_000]


def test_memory_bounds_what_is_loaded_and_changes_no_bit():
    album = Album(700)
    pairs = drawn(album, 3_000)
    expected = album.distances(pairs)
    assert album.most == len(np.unique(pairs[pairs[:, 0] != pairs[:, 1]]))
    album.most = 0
    album.loads[:] = 0
    room = 560
    found = album.distances(pairs, memory=room * ROW + 24 * 256**2)
    assert album.most <= room
    assert album.loads.max() <= 4
    for name in CLASSICAL:
        assert np.array_equal(found[name], expected[name])
    with pytest.raises(UsageError, match="memory is too small"):
        album.distances(pairs, memory=1 << 20)


def test_images_of_their_own_are_loaded_once_even_where_few_fit():
    album = Album(2_000)
    pairs = np.random.default_rng(1).permutation(2_000).reshape(-1, 2)
    album.distances(np.sort(pairs, axis=1), memory=600 * ROW + 24 * 256**2)
    assert album.most <= 600
    assert album.loads.max() == 1


def test_a_distance_does_not_depend_on_the_other_pairs():
    album = Album(90)
    pairs = drawn(album, 200)
    together = album.distances(pairs)
    for chosen in (pairs[3:4], pairs[50:115]):
        alone = album.distances(chosen)
        places = [int(np.flatnonzero((pairs == pair).all(1))[0]) for pair in chosen]
        for name in CLASSICAL:
            assert np.array_equal(alone[name], together[name][places]), name


def test_no_pairs_and_pairs_of_one_image():
    album = Album(3)
    assert album.distances(np.empty((0, 2), np.int64))["L2"].tolist() == []
    found = album.distances(np.array([[1, 1], [2, 2]]))
    assert album.loads.sum() == 0
    assert {name: values.tolist() for name, values in found.items()} == {
        "L2": [0, 0],
        "PSNR": [-np.inf, -np.inf],
        "SSIM": [0, 0],
    }
