"""Masks carried to taps by area, against areas counted pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lpipstore.pipeline.distances.masks import by_area, weighted_mean
from lpipstore.pipeline.distances.module import LPIPS

SIDES = st.integers(33, 75)
CORNERS = st.tuples(*[st.floats(0, 1)] * 4, st.floats(0.1, 3))
METRICS = {net: LPIPS(net, weights="random") for net in ("squeeze", "alex")}


def share(pixels, positions):
    """Share of each pixel in each position, on a grid that is fine enough for both."""
    fine = np.repeat(np.eye(pixels), positions, axis=1)  # pixels × (pixels · positions)
    return fine.reshape(pixels, positions, pixels).mean(axis=2).T


@pytest.mark.parametrize("size", [(8, 8), (3, 5), (1, 1), (7, 4), (11, 13)])
def test_positions_get_the_mean_over_their_area(size):
    mask = torch.rand(2, 1, 8, 10, generator=torch.Generator().manual_seed(0))
    expected = share(8, size[0]) @ mask.numpy().astype("f8") @ share(10, size[1]).T
    found = by_area(mask, size)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("size", [(15, 15), (13, 54), (224, 111)])
def test_equal_weights_stay_equal_to_the_bit(size, value):
    found = by_area(torch.full((1, 1, 224, 227), value), size)
    assert torch.equal(found, torch.full((1, 1, *size), value))


def test_mean_over_no_weight_is_zero():
    distances = torch.rand(2, 1, 3, 3, requires_grad=True)
    weights = torch.ones(2, 1, 3, 3)
    weights[0] = 0
    mean = weighted_mean(distances, weights)
    mean.sum().backward()
    assert mean[0] == 0
    torch.testing.assert_close(mean[1], distances[1].mean().detach().view(1, 1, 1))
    assert torch.equal(distances.grad[0], torch.zeros(1, 3, 3))


def rectangles(corners, height, width):
    """Sum of weighted rectangles, whose corners are shares of the sides."""
    mask = np.zeros((height, width))
    for top, bottom, left, right, weight in corners:
        rows = slice(*sorted((int(top * height), int(bottom * height))))
        columns = slice(*sorted((int(left * width), int(right * width))))
        mask[rows, columns] += weight
    return mask


@pytest.mark.parametrize("net", METRICS)
@given(height=SIDES, width=SIDES, corners=st.lists(CORNERS, min_size=1, max_size=4))
@settings(max_examples=25)
def test_distance_is_that_of_shares_of_area_counted_by_hand(net, height, width, corners):
    metric = METRICS[net]
    generator = torch.Generator().manual_seed(height * width)
    first, second = torch.rand(2, 1, 3, height, width, generator=generator) * 2 - 1
    mask = rectangles(corners, height, width)
    with torch.no_grad():
        taps = [metric.trunk(metric.scaling(side)) for side in (first, second)]
        found = metric(first, second, mask=torch.from_numpy(mask)[None, None])
    expected = 0.0
    for one, other, head in zip(*taps, metric.head_weights, strict=True):
        units = [tap[0].numpy().astype("f8") for tap in (one, other)]
        units = [unit / (np.sqrt((unit**2).sum(0)) + 1e-10) for unit in units]
        distances = np.einsum("c,chw->hw", head.numpy().astype("f8"), (units[0] - units[1]) ** 2)
        areas = share(height, len(distances)) @ mask @ share(width, distances.shape[1]).T
        expected += (distances * areas).sum() / areas.sum() if areas.any() else 0.0
    assert abs(float(found) - expected) <= 1e-6
