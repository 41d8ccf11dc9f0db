"""Merging matrices: whichever lacks distances is the one that the message names."""

import numpy as np
import pytest
import zarr

from lpipstore.cache.errors import LpipstoreError
from lpipstore.pipeline.matrix.merge import Pieces, assemble
from lpipstore.workflows.scoring.in_memory import MatrixInMemory

OLD, NEW = 3, 2


@pytest.fixture
def arrays(tmp_path):
    """Distances of three old images and two new ones, as numbers that tell them apart."""
    shapes = {"old": (OLD, OLD), "among": (NEW, NEW), "against": (NEW, OLD)}
    made = {}
    for number, (name, shape) in enumerate(shapes.items(), 1):
        folder = tmp_path / name / "distances.zarr"
        array = zarr.create_array(folder, shape=shape, chunks=shape, dtype="float32")
        values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 100 * number
        array[:] = values + values.T if name != "against" else values
        made[name] = array
    return made


@pytest.fixture
def merge(tmp_path, arrays):
    """Merge the arrays in the order old, new, old, new, old."""

    def run():
        pieces = Pieces(
            old=tmp_path / "old",
            among=arrays["among"],
            against=arrays["against"],
            places=np.array([0, -1, 1, -1, 2]),
            numbers=np.array([-1, 0, -1, 1, -1]),
            columns=np.array([0, -1, 1, -1, 2]),
        )
        matrix = MatrixInMemory(OLD + NEW, 2)
        assemble(pieces, matrix, [(i, j) for i in range(3) for j in range(i, 3)])
        return matrix.array

    return run


def test_each_distance_comes_from_its_piece(merge, arrays):
    merged = merge()
    kept, new = [0, 2, 4], [1, 3]
    assert np.array_equal(merged[np.ix_(kept, kept)], arrays["old"][:])
    assert np.array_equal(merged[np.ix_(new, new)], arrays["among"][:])
    assert np.array_equal(merged[np.ix_(new, kept)], arrays["against"][:])
    assert np.array_equal(merged, merged.T)


def test_holes_in_the_old_matrix_are_its_own(merge, arrays, tmp_path):
    arrays["old"][1, 2] = np.nan
    with pytest.raises(LpipstoreError, match="command that made it again") as caught:
        merge()
    assert str(tmp_path / "old") in str(caught.value)


@pytest.mark.parametrize("name", ["among", "against"])
def test_holes_in_a_new_matrix_are_not_blamed_on_the_old_one(merge, arrays, tmp_path, name):
    arrays[name][0, 1] = np.nan
    with pytest.raises(LpipstoreError, match="lacks some: remove that folder") as caught:
        merge()
    assert str(tmp_path / name / "distances.zarr") in str(caught.value)
    assert str(tmp_path / "old") not in str(caught.value)
