"""Whole jobs on a GPU against the CPU: the same pairs, and distances that agree to rounding.

Rows that the CPU has made are scored on the GPU, so that only the arithmetic of distances differs.
"""

import os

import numpy as np
import pytest
from PIL import Image

import lpipstore

pytestmark = pytest.mark.gpu

# A run on the CPU in this variable's place shows that the tests themselves are right
GPU = os.environ.get("LPIPSTORE_TEST_GPU", "cuda")
TOLERANCE = 1e-6  # of the mean distance, as for rows of any two processors


@pytest.fixture(scope="module")
def images(draw, tmp_path_factory):
    """150 pictures, 30 of them copies as JPEG."""
    folder = tmp_path_factory.mktemp("gpu") / "pictures"
    for path in draw(folder, 120)[:30]:
        Image.open(path).save(path.with_suffix(".jpg"), quality=90)
    return folder


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Options of all runs, with a store that holds the rows of the CPU."""
    store = tmp_path_factory.mktemp("gpu-store")
    return {"backbone": "squeeze", "weights": "random", "store": store, "workers": 0}


@pytest.fixture(scope="module")
def here(images, options):
    """All distances on the CPU."""
    return lpipstore.distance_matrix(images, device="cpu", **options)


def test_the_matrix_agrees_whatever_fits_in_the_memory_of_the_device(images, options, here):
    for memory in ("4GB", "60MB"):
        matrix = lpipstore.distance_matrix(images, device=GPU, memory=memory, **options)
        assert np.abs(matrix - here).max() <= TOLERANCE * here.mean()
        assert np.array_equal(matrix, matrix.T)
        assert (matrix.diagonal() == 0).all()


def test_fast_products_stay_near(images, options, here):
    matrix = lpipstore.distance_matrix(images, device=GPU, precision="fast", **options)
    assert np.abs(matrix - here).max() <= 0.01 * here.mean()


def test_the_same_pairs_are_close_and_near(images, options, here):
    upper = here[np.triu_indices(len(here), 1)]
    below = float(np.sort(upper)[30:32].mean())  # not at a distance, where rounding decides
    for ask in (
        lambda device: lpipstore.below(images, below, device=device, **options),
        lambda device: lpipstore.nearest(images, 3, device=device, **options),
    ):
        cpu, gpu = (ask(device).pairs.to_pydict() for device in ("cpu", GPU))
        assert (cpu["i"], cpu["j"]) == (gpu["i"], gpu["j"])
        assert np.abs(np.subtract(cpu["distance"], gpu["distance"])).max() <= 1e-6


def test_listed_pairs_agree(images, options, here):
    names = sorted(str(path) for path in images.iterdir())
    pairs = [(names[a], names[b]) for a, b in ((0, 1), (2, 40), (3, 3), (149, 0))]
    cpu, gpu = (
        np.asarray(lpipstore.score(pairs, device=device, **options).pairs["distance"])
        for device in ("cpu", GPU)
    )
    assert np.abs(cpu - gpu).max() <= TOLERANCE * here.mean()


def test_rows_of_the_device_are_those_of_the_cpu_to_rounding(images, options, here, tmp_path):
    elsewhere = {**options, "store": tmp_path / "store"}
    matrix = lpipstore.distance_matrix(images, device=GPU, **elsewhere)
    assert np.abs(matrix - here).max() <= 1e-4 * here.mean()


def test_equal_images_are_equal_and_a_second_run_is_the_same_to_the_bit(images, options):
    first, second = (lpipstore.distance_matrix(images, device=GPU, **options) for _ in range(2))
    assert np.array_equal(first, second)
