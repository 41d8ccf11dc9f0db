"""Parity with the PyPI package ``lpips``: the same random trunk in both, and published numbers.

Tolerance: 1e-6 absolute or 1e-5 of the value, whichever is larger; both sides compute in float32
and add up in different orders. Gradients are compared in float64, within 1e-6 of the largest (the
package keeps shift and scale in float32): in float32, rounding decides at a few places whether a
ReLU passes a gradient on.
"""

import copy
import os
from importlib.resources import files

import lpips
import pytest
import torch

from lpipstore.pipeline.distances.module import LPIPS

NETS = ("alex", "vgg", "squeeze")
MODES = {
    "value": {"lpips": True, "spatial": False},
    "spatial": {"lpips": True, "spatial": True},
    "baseline": {"lpips": False, "spatial": False},
    "baseline-spatial": {"lpips": False, "spatial": True},
}


def assert_near(ours, theirs):
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def image_pairs(batch, height, width):
    """Unrelated pairs and near-duplicates in turn, in [-1, 1]."""
    generator = torch.Generator().manual_seed(batch * 1000 + width)
    first = torch.rand(batch, 3, height, width, generator=generator) * 2 - 1
    second = torch.rand(batch, 3, height, width, generator=generator) * 2 - 1
    second[1::2] = (first + 0.02 * second)[1::2].clamp(-1, 1)
    return first, second


@pytest.fixture(scope="module", params=NETS)
def reference(request):
    """The package's module with a random trunk, one for each net."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lpips.LPIPS(net=request.param, pnet_rand=True, verbose=False)


def both(reference, version, mode):
    """Reference and ours, set to a version and a mode, on one trunk."""
    net = reference.pnet_type
    heads = files("lpips").joinpath(f"weights/v{version}/{net}.pth")
    reference.load_state_dict(
        torch.load(heads, map_location="cpu", weights_only=True), strict=False
    )
    reference.version = version
    reference.lpips, reference.spatial = MODES[mode]["lpips"], MODES[mode]["spatial"]
    # "slice2.3.weight" of the package is "features.3.weight" of torchvision
    trunk = {
        f"features.{name.split('.', 1)[1]}": tensor
        for name, tensor in reference.net.state_dict().items()
    }
    return reference, LPIPS(net, version, **MODES[mode], weights=trunk)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", ["0.1", "0.0"])
@pytest.mark.parametrize(
    ("batch", "height", "width"),
    [
        (7, 64, 64),
        (1, 65, 97),
        (7, 65, 97),
        pytest.param(1, 224, 224, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_values_and_layers_equal_the_package(reference, version, mode, batch, height, width):
    theirs, ours = both(reference, version, mode)
    first, second = image_pairs(batch, height, width)
    with torch.no_grad():
        value, layers = ours(first, second, retPerLayer=True)
        value_theirs, layers_theirs = theirs(first, second, retPerLayer=True)
    assert value_theirs.max() > 0.01  # the trunk tells the unrelated images apart
    assert_near(value, value_theirs)
    assert len(layers) == len(layers_theirs)
    for layer, layer_theirs in zip(layers, layers_theirs, strict=True):
        assert_near(layer, layer_theirs)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["value", "spatial"])
def test_seven_pairs_at_224_equal_the_package(reference, mode):
    if (reference.pnet_type, mode) == ("vgg", "spatial"):
        mode = "baseline-spatial"  # one heavy run covers what the smaller sizes do not
    theirs, ours = both(reference, "0.1", mode)
    first, second = image_pairs(7, 224, 224)
    with torch.no_grad():
        assert_near(ours(first, second), theirs(first, second))


def test_normalize_takes_images_from_0_to_1(reference):
    theirs, ours = both(reference, "0.1", "value")
    first, second = (image / 2 + 0.5 for image in image_pairs(2, 64, 64))
    with torch.no_grad():
        assert_near(ours(first, second, normalize=True), theirs(first, second, normalize=True))
        assert_near(ours(first, second, normalize=True), ours(first * 2 - 1, second * 2 - 1))


def test_grey_images_are_taken_as_the_package_takes_them(reference):
    theirs, ours = both(reference, "0.1", "value")
    first, second = (image[:, :1] for image in image_pairs(2, 64, 64))
    with torch.no_grad():
        assert_near(ours(first, second), theirs(first, second))


@pytest.mark.parametrize("mode", ["value", "spatial", "baseline"])
@pytest.mark.parametrize("version", ["0.1", "0.0"])
def test_gradients_of_both_images_equal_the_package(reference, version, mode):
    gradients = []
    for model in both(reference, version, mode):
        exact = copy.deepcopy(model).double()
        first, second = (image.double().requires_grad_() for image in image_pairs(2, 65, 97))
        exact(first, second).sum().backward()
        gradients.append((first.grad, second.grad))
    for mine, other in zip(*gradients, strict=True):
        largest = float(other.abs().max())
        assert largest > 0
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6 * largest)


def test_gradients_of_the_head_equal_the_package(reference):
    theirs, ours = both(reference, "0.1", "value")
    ours.head_weights.requires_grad_(True)
    first, second = image_pairs(2, 64, 64)
    ours(first, second).sum().backward()
    theirs.zero_grad()
    theirs(first, second).sum().backward()
    for weight, lin in zip(ours.head_weights, theirs.lins, strict=True):
        assert_near(weight.grad, lin.model[-1].weight.grad.flatten())


def test_squeeze_with_imagenet_weights_gives_the_numbers_of_torchmetrics():
    """The example in torchmetrics' documentation of LPIPS."""
    if not os.environ.get("LPIPSTORE_WEIGHTS"):
        pytest.skip("needs a folder with squeezenet1_1*.pth in LPIPSTORE_WEIGHTS")
    metric = LPIPS(net="squeeze")
    generator = torch.Generator().manual_seed(42)
    first = torch.rand(2, 3, 100, 100, generator=generator) * 2 - 1
    second = torch.rand(2, 3, 100, 100, generator=generator) * 2 - 1
    with torch.no_grad():
        distances = metric(first, second)
    assert metric.trained
    torch.testing.assert_close(
        distances.flatten(), torch.tensor([0.1024, 0.0938]), rtol=0, atol=5e-5
    )
