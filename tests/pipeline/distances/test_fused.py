"""One step from two taps to their distance map: values and derivatives of the formula."""

import pytest
import torch

from lpipstore.pipeline.distances.fused import tap_distances
from lpipstore.pipeline.distances.maps import distance_map
from lpipstore.pipeline.features.normalise import unit_normalise


def tap(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def by_formula(first, second, weights):
    return distance_map(unit_normalise(first), unit_normalise(second), weights)


@pytest.mark.parametrize("batches", [(2, 2), (1, 2), (2, 1)])
def test_derivatives_are_those_of_finite_differences(batches):
    first, second = (tap(b, 4, 2, 3, seed=s) for s, b in enumerate(batches))
    inputs = [tensor.requires_grad_() for tensor in (first, second, tap(4, seed=2))]
    assert torch.autograd.gradcheck(tap_distances, inputs)
    assert torch.autograd.gradgradcheck(tap_distances, inputs)


@pytest.mark.parametrize("wanted", [(1, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1)])
@pytest.mark.parametrize("size", [1.0, 1e-9, 1e-18])
def test_gradients_are_those_of_the_operations(wanted, size):
    """Also where the norm is not above the epsilon, and where nothing is active."""
    tensors = [tap(2, 5, 3, 3, seed=s, dtype=torch.float32) * size for s in (0, 1)]
    tensors[0][:, :, 1, 1] = 0
    tensors.append(tap(5, seed=2, dtype=torch.float32))
    found = []
    for function in (tap_distances, by_formula):
        inputs = [t.clone().requires_grad_(bool(w)) for t, w in zip(tensors, wanted, strict=True)]
        value = function(*inputs)
        value.square().sum().backward()
        found.append([value.detach(), *(t.grad for t in inputs if t.requires_grad)])
    for mine, other in zip(*found, strict=True):
        assert torch.isfinite(mine).all()
        scale = float(other.abs().max())
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5 * scale)


def test_gradients_have_the_dtype_of_the_taps():
    first = tap(1, 4, 2, 2, dtype=torch.bfloat16).requires_grad_()
    second = tap(1, 4, 2, 2, seed=1, dtype=torch.float32)
    value = tap_distances(first, second, torch.ones(4))
    value.sum().backward()
    assert value.dtype == torch.float32
    assert first.grad.dtype == torch.bfloat16
