"""Classical scaling: the principal components of points whose squared distances are given."""

import numpy as np
import pytest

from lpipstore.cache.errors import LpipstoreError
from lpipstore.pipeline.analysis.scaling import classical_scaling


def squared(points):
    return ((points[:, None] - points[None]) ** 2).sum(2).astype(np.float32)


@pytest.mark.parametrize("count", [3, 50, 400, 401, 700])
def test_the_map_is_the_projection_on_principal_components(count):
    points = np.random.default_rng(count).normal(size=(count, 5)) * [5, 3, 1, 0.5, 0.2]
    found, share = classical_scaling(squared(points))
    centred = points - points.mean(0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * singular[:2]
    for found_axis, axis in zip(found.T, expected.T, strict=True):
        assert abs(found_axis @ axis) == pytest.approx(axis @ axis, rel=1e-4)
    assert share == pytest.approx((singular[:2] ** 2).sum() / (singular**2).sum(), rel=1e-4)
    np.testing.assert_allclose(found.sum(0), 0, atol=1e-3)
    assert (found[np.abs(found).argmax(0), [0, 1]] > 0).all()


@pytest.mark.parametrize("count", [4, 600])
def test_points_of_a_plane_keep_their_distances(count):
    distances = squared(np.random.default_rng(1).normal(size=(count, 2)))
    found, share = classical_scaling(distances)
    np.testing.assert_allclose(squared(found), distances, atol=1e-4)
    assert share == pytest.approx(1, abs=1e-6)


def test_many_and_few_images_give_the_same_map(monkeypatch):
    distances = squared(np.random.default_rng(2).normal(size=(300, 6)) * np.arange(1, 7))
    dense, share = classical_scaling(distances)
    monkeypatch.setattr("lpipstore.pipeline.analysis.scaling._DENSE", 10)
    sparse, estimated = classical_scaling(distances)
    np.testing.assert_allclose(sparse, dense, atol=1e-3)
    assert estimated == pytest.approx(share, rel=1e-5)
    again, _ = classical_scaling(distances)
    assert (again == sparse).all()


def test_the_matrix_is_left_as_it_was():
    distances = squared(np.random.default_rng(3).normal(size=(500, 4)))
    before = distances.copy()
    classical_scaling(distances)
    assert (distances == before).all()


@pytest.mark.parametrize("count", [0, 1, 2, 600])
def test_few_images_and_images_that_are_all_the_same_work(count):
    found, share = classical_scaling(np.zeros((count, count), np.float32), 3)
    assert found.shape == (count, 3)
    assert not found.any()
    assert share == 1


@pytest.mark.parametrize("count", [2, 3, 500])
def test_images_that_are_all_equally_far_apart_work(count):
    found, share = classical_scaling(1 - np.eye(count, dtype=np.float32))
    assert np.isfinite(found).all()
    assert share == pytest.approx(min(1, 2 / (count - 1)), rel=1e-3)


def test_two_images_stand_at_the_root_of_their_distance():
    found, share = classical_scaling(np.array([[0, 0.25], [0.25, 0]], np.float32))
    np.testing.assert_allclose(sorted(found[:, 0]), [-0.25, 0.25], atol=1e-12)
    np.testing.assert_allclose(found[:, 1], 0, atol=1e-7)
    assert share == pytest.approx(1)


def test_negative_eigenvalues_are_left_out():
    odd = np.array([[0, 1, 9], [1, 0, 1], [9, 1, 0]], np.float32)  # no triangle has such sides
    found, share = classical_scaling(odd)
    assert np.isfinite(found).all()
    assert share == pytest.approx(1)
    assert not found[:, 1].any()


def test_missing_distances_are_refused():
    broken = np.zeros((5, 5), np.float32)
    broken[1, 3] = np.nan
    with pytest.raises(LpipstoreError, match="missing or not finite"):
        classical_scaling(broken)
