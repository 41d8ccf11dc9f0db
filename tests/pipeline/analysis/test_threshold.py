"""A threshold that lies in the valley between two heaps, if there are two."""

import numpy as np
import pytest

from lpipstore.pipeline.analysis.threshold import suggest_threshold


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.8])
def test_two_heaps_have_a_valley(share):
    random = np.random.default_rng(0)
    near = random.gamma(2, 0.01, round(1000 * share))
    far = random.normal(0.4, 0.05, 1000 - len(near))
    found = suggest_threshold(np.concatenate([near, far]))
    assert found.clear
    assert np.quantile(near, 0.98) < found.below < far.min()
    assert f"{found.below:g}" in found.reason


@pytest.mark.parametrize("seed", range(5))
def test_one_heap_has_none(seed):
    found = suggest_threshold(np.random.default_rng(seed).normal(0.4, 0.05, 1000))
    assert not found.clear
    assert 0 < found.below < 0.2


@pytest.mark.parametrize("nearest", [[], [0.3], [0.3] * 50, [0.0] * 50, [np.inf, 0.2, 0.3]])
def test_too_little_to_tell(nearest):
    found = suggest_threshold(np.array(nearest))
    assert not found.clear
    assert found.below > 0
    assert found.reason
