"""The arithmetic of one tap, against float64 and at the places where it could break."""

import pytest
import torch

from lpipstore.pipeline.distances.maps import distance_map, spatial_mean, upsample
from lpipstore.pipeline.features.normalise import unit_normalise


def random_tap(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_normalised_taps_have_norm_one_at_each_position():
    tap = random_tap(2, 5, 3, 4)
    norms = unit_normalise(tap).square().sum(dim=1).sqrt()
    torch.testing.assert_close(norms, torch.ones(2, 3, 4))


def test_norm_is_over_the_channels_and_epsilon_is_added_to_it():
    tap = torch.tensor([3e-10, 4e-10]).view(1, 2, 1, 1)
    expected = torch.tensor([3 / 6, 4 / 6]).view(1, 2, 1, 1)  # the norm is 5e-10
    torch.testing.assert_close(unit_normalise(tap), expected)


def test_silent_position_gives_zero_and_zero_gradient():
    tap = random_tap(1, 4, 2, 2)
    tap[:, :, 1, 0] = 0
    tap.requires_grad_()
    normalised = unit_normalise(tap)
    distance_map(normalised, unit_normalise(random_tap(1, 4, 2, 2, seed=1))).sum().backward()
    assert torch.equal(normalised[:, :, 1, 0], torch.zeros(1, 4))
    assert torch.isfinite(tap.grad).all()
    assert torch.equal(tap.grad[:, :, 1, 0], torch.zeros(1, 4))
    assert (tap.grad[:, :, 0, 0] != 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_normalised_in_float32(dtype):
    tap = (random_tap(1, 64, 2, 2) * 300).to(dtype)  # the sum of squares overflows float16
    normalised = unit_normalise(tap)
    assert normalised.dtype == torch.float32
    assert torch.equal(normalised, unit_normalise(tap.float()))
    torch.testing.assert_close(normalised.square().sum(dim=1), torch.ones(1, 2, 2))


def test_distance_map_is_the_weighted_sum_over_channels():
    first, second = random_tap(2, 3, 4, 5), random_tap(2, 3, 4, 5, seed=1)
    weights = torch.tensor([0.5, -2.0, 3.0])
    expected = torch.einsum(
        "c,bchw->bhw", weights.double(), (first.double() - second.double()) ** 2
    )
    found = distance_map(first, second, weights)
    assert found.shape == (2, 1, 4, 5)
    torch.testing.assert_close(found[:, 0].double(), expected, rtol=1e-5, atol=1e-6)


def test_distance_map_without_weights_counts_every_channel_once():
    first, second = random_tap(1, 3, 2, 2), random_tap(4, 3, 2, 2, seed=1)
    found = distance_map(first, second)
    assert torch.equal(found, distance_map(first, second, torch.ones(3)))
    assert found.shape == (4, 1, 2, 2)


def test_mean_and_upsampling_keep_a_constant():
    distances = torch.full((2, 1, 3, 5), 0.25)
    assert torch.equal(spatial_mean(distances), torch.full((2, 1, 1, 1), 0.25))
    torch.testing.assert_close(upsample(distances, (7, 11)), torch.full((2, 1, 7, 11), 0.25))


def test_upsampling_does_not_align_corners():
    distances = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    expected = torch.tensor([0.0, 0.25, 0.75, 1.0]).view(1, 1, 1, 4)
    torch.testing.assert_close(upsample(distances, (1, 4)), expected)
