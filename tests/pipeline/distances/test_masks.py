"""Masks carried to taps by area, against areas counted pixel by pixel."""

import numpy as np
import pytest
import torch

from lpipstore.pipeline.distances.masks import by_area, weighted_mean


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
